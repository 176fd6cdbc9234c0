#!/bin/sh
# Every stage of learning, on two cores; 22 CPU minutes (AVX2).
#
#     runs/tiny.sh DIR [SEED]
#
# MN-XS (0.9 million parameters) on 800 rendered, synthetic scenes of 64 pixels, judged on 200
# others: amateur, an expert for each type of task, hard-shared multitask training, generalist (100
# more scenes choose how far it goes from its experts), and one backbone distilled out of it. Linear
# probes on frozen features come last, with CIFAR-10 (10 % of its labels, 32 pixels) where
# ROADWORTHY_DATA names the data. STEPS=N makes stages longer.
set -eu
out=${1:?usage: runs/tiny.sh DIR [SEED]}
seed=${2:-0}
steps=${STEPS:-50}
tasks="classification detection segmentation depth"
random=metanet:mn_xs@random
each="--seed $seed --batch-size 48"

[ -e "$out/scenes/index.json" ] || roadworthy learn pack scenes:0-800 --out "$out/scenes" &
[ -e "$out/held/index.json" ] || roadworthy learn pack scenes:100000-100200 --out "$out/held"
[ -e "$out/choose/index.json" ] || roadworthy learn pack scenes:200000-200100 --out "$out/choose"
wait

sources=
held=
choose=
for task in $tasks; do
    sources="$sources --source $task=shards:$out/scenes"
    held="$held --held $task=shards:$out/held"
    choose="$choose --choose $task=shards:$out/choose"
done

roadworthy learn amateur $random --source "shards:$out/scenes" --held "shards:$out/held" \
    $each --steps "$steps" --out "$out/amateur"
for task in $tasks; do
    roadworthy learn expert "$out/amateur" --source "$task=shards:$out/scenes" \
        --held "$task=shards:$out/held" $each --steps "$steps" --out "$out/$task"
done
roadworthy learn expert "$out/amateur" $sources $held $each --steps $((4 * steps)) \
    --out "$out/multitask"
roadworthy learn generalist "$out/detection" \
    --with "$out/classification" "$out/segmentation" "$out/depth" \
    $sources $held $choose $each --steps $((2 * steps)) --rate 0.001 --out "$out/generalist"
roadworthy learn distill "$out/generalist" --student "$out/detection" \
    $sources $held $each --steps $((3 * steps)) --out "$out/distilled"

probe() { # SET TRAIN TEST OPTIONS...: of every backbone, two at a time
    set_=$1 train=$2 test=$3
    shift 3
    for model in $random $out/amateur $out/classification $out/detection $out/segmentation \
        $out/depth $out/multitask $out/generalist $out/distilled; do
        echo "$model"
    done | OMP_NUM_THREADS=1 xargs -P 2 -I MODEL sh -c 'roadworthy learn probe MODEL "$@" \
        --out "$0-$(basename MODEL)"' "$out/$set_" --seed "$seed" \
        --data "classification=$train" --test "classification=$test" "$@"
}
probe probe "shards:$out/scenes" "shards:$out/held"
[ -z "${ROADWORTHY_DATA:-}" ] || probe cifar "npz:$ROADWORTHY_DATA/cifar10/train.npz" \
    "npz:$ROADWORTHY_DATA/cifar10/test.npz" --fraction 0.1 --size 32
roadworthy learn show "$out"
