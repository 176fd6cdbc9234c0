# What the runs have in common; they set the variables and read this file.
#
# DIR, SEED     where it goes, and the seed of every stage
# MODEL, SIZE   architecture, pixels a side
# SCENES        rendered, synthetic scenes to learn from
# STEPS         of an expert
# AMATEUR, CLASSES   how many times as many are the amateur's, and the classifying expert's
# OPTIONS       of every stage
# JOBS          processes at a time, where stages do not wait for each other
# REAL          yes: tiny ImageNet, Flickr8k and COCO's 128 images of ROADWORTHY_DATA beside scenes
# PACKED        where packed data lie, for several seeds to share (DIR)
#
# Amateur, an expert for each type of task, hard-shared multitask training with as many steps as the
# experts have together, a generalist whose main branch is the multitask one, and one backbone
# distilled out of it, which begins as the multitask one too and asks its teacher about boxes alone;
# beside it as many steps from there without a teacher. Linear probes on frozen features come last:
# of the scenes' classes and of CIFAR-10 (10 % of its labels, 32 pixels), which no stage has seen.

tasks="classification detection segmentation depth"
random=metanet:$MODEL@random
packed=${PACKED:-$DIR}
whole=$(((CLASSES + 3) * STEPS))
common="--seed $SEED --size $SIZE $OPTIONS"
data=${ROADWORTHY_DATA:-}

all() { # lines of arguments for roadworthy learn: JOBS at a time, a thread each
    OMP_NUM_THREADS=1 xargs -r -P "$JOBS" -L 1 roadworthy learn
}

pack() { # NAME SPEC OPTIONS...: once
    [ -e "$packed/$1/index.json" ] || echo pack --size "$SIZE" --out "$packed/"$*
}

sources() { # TASK [choose]: what it learns from, what judges it, what chooses
    echo "--source $1=shards:$packed/scenes --held $1=shards:$packed/held"
    ${2:+echo "--choose $1=shards:$packed/choose"}
    [ "$REAL" = yes ] || return 0
    case $1 in
    classification)
        echo "--source $1=shards:$packed/tiny --held $1=shards:$packed/tiny-held"
        ${2:+echo "--choose $1=shards:$packed/tiny-choose"}
        ;;
    detection) echo "--source $1=shards:$packed/coco" ;;
    segmentation) echo "--source $1=shards:$packed/coco-masks" ;;
    esac
}

every() { # [choose]: of all tasks
    for task in $tasks; do sources "$task" "$@"; done
}

captions="--source shards:$packed/scenes"
[ "$REAL" != yes ] || captions="$captions --source shards:$packed/tiny --source shards:$packed/flickr"
{
    pack scenes "scenes:0-$SCENES"
    pack held scenes:1000000-1000200
    pack choose scenes:2000000-2000100
    if [ "$REAL" = yes ]; then
        tiny="?names=$data/tiny_imagenet/wnids.txt --source tiny_imagenet"
        pack tiny "npz:$data/tiny_imagenet/train.npz$tiny" --split train
        pack tiny-held "npz:$data/tiny_imagenet/val.npz$tiny" --split val --numbers 500-2000
        pack tiny-choose "npz:$data/tiny_imagenet/val.npz$tiny" --split val --numbers 0-500
        flickr=$data/flickr8k_1000
        pack flickr "captions:$flickr/captions.txt@$flickr/images" --source flickr8k
        pack coco "yolo:$data/coco_val128" --source coco_val128
        pack coco-masks "masks:$data/coco_val128?ignore=0" --source coco_val128 --labelled
    fi
} | all

OMP_NUM_THREADS=$JOBS roadworthy learn amateur $random $captions --held "shards:$packed/held" \
    $common --steps $((AMATEUR * STEPS)) --out "$DIR/amateur"
{
    echo expert "$DIR/amateur" $(every) $common --steps $whole --out "$DIR/multitask"
    for task in $tasks; do
        steps=$STEPS
        [ $task != classification ] || steps=$((CLASSES * STEPS))
        echo expert "$DIR/amateur" $(sources $task) $common --steps $steps --out "$DIR/$task"
    done
} | all
experts=
for task in $tasks; do experts="$experts $DIR/$task"; done
OMP_NUM_THREADS=$JOBS roadworthy learn generalist "$DIR/multitask" --with $experts $(every choose) \
    $common --steps $((2 * STEPS)) --rate 0.001 --out "$DIR/generalist"
further="$(every) $common --steps $whole --temperature 1"
{
    echo distill "$DIR/generalist" --student "$DIR/multitask" --hints detection $further \
        --out "$DIR/distilled"
    echo expert "$DIR/multitask" $further --out "$DIR/further"
} | all

models=$random
for stage in amateur $tasks multitask further generalist distilled; do models="$models $DIR/$stage"; done
{
    echo probe $models --seed "$SEED" --size "$SIZE" --out "$DIR/probe" \
        --data "classification=shards:$packed/scenes" --test "classification=shards:$packed/held"
    [ -z "$data" ] || echo probe $models --seed "$SEED" --size 32 --fraction 0.1 \
        --data "classification=npz:$data/cifar10/train.npz" \
        --test "classification=npz:$data/cifar10/test.npz" --out "$DIR/cifar"
} | all
roadworthy learn show "$DIR"
