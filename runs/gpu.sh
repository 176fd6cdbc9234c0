#!/bin/sh
# Every stage of learning on one GPU in bfloat16, MN-S (5.0 million parameters), on scenes, and on
# real images too where ROADWORTHY_DATA names the folder of runs/small.sh.
#
#     runs/gpu.sh DIR [SEED]
#
# Not measured yet: written for half an hour on one GPU. DEVICE=cpu STEPS=2 tries it without one.
set -eu
DIR=${1:?usage: runs/gpu.sh DIR [SEED]} SEED=${2:-0}
MODEL=mn_s SIZE=64 SCENES=${SCENES:-8000} STEPS=${STEPS:-1000} AMATEUR=3 CLASSES=6
OPTIONS="--batch-size 256 --rate 0.003 --precision bf16-mixed --device ${DEVICE:-cuda}"
JOBS=${JOBS:-4} REAL=${ROADWORTHY_DATA:+yes}
. "$(dirname "$0")/stages.sh"
