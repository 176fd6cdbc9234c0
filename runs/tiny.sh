#!/bin/sh
# Every stage of learning on 800 rendered, synthetic scenes, MN-XS (0.9 million parameters), on two
# cores in about five minutes; CIFAR-10 is probed where ROADWORTHY_DATA names the data.
#
#     runs/tiny.sh DIR [SEED]
#
# STEPS=N makes stages longer, JOBS=N says how many processes there may be at a time.
set -eu
DIR=${1:?usage: runs/tiny.sh DIR [SEED]} SEED=${2:-0}
MODEL=mn_xs SIZE=64 SCENES=800 STEPS=${STEPS:-40} AMATEUR=1 CLASSES=1
OPTIONS="--batch-size 48" JOBS=${JOBS:-2} REAL=no
. "$(dirname "$0")/stages.sh"
