#!/bin/sh
# Every stage of learning on scenes and real images: tiny ImageNet (8000, names of classes), Flickr8k
# (1000, captions) and COCO (128, boxes and masks), MN-XS, on a CPU: 26 CPU minutes of learning
# (AVX2). What it reaches stands in docs/learn.md.
#
#     ROADWORTHY_DATA=DATA runs/small.sh DIR [SEED]
set -eu
DIR=${1:?usage: runs/small.sh DIR [SEED]} SEED=${2:-0}
: "${ROADWORTHY_DATA:?name the folder of tiny_imagenet, flickr8k_1000 and coco_val128}"
MODEL=mn_xs SIZE=64 SCENES=2000 STEPS=${STEPS:-100} AMATEUR=3 CLASSES=6
OPTIONS="--batch-size 64" JOBS=${JOBS:-2} REAL=yes
. "$(dirname "$0")/stages.sh"
