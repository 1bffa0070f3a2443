#!/usr/bin/env bash
# The trained tables of docs/comparison.md on generated scenes: every method from one dense model, as it is and trained one epoch.
#   benchmarks/scenes_arena.sh SCENES OUT [SEEDS] [NAME...]   (SCENES: OUT of scenes_tasks.sh; names: reasoning caption retrieval)
# The test split is read once a row. Two to three hours a name on one core, with one seed.
set -euo pipefail
scenes=$1 out=$2 seeds=${3:-1}
names=${*:4}
. "$(dirname "$0")/runs.sh"
methods=dense,tome_dynamic,downsample,madtp,tome,random,class_attention,crossget,elip,upop

# The dense model's name and the options that its task is trained with.
compare() {
    $madtp compare --model "$scenes/$1-dense" --out "$out/$1" --reduction 0.51,0.81 --methods "$methods" --seeds "$seeds" \
        --epochs 1 --tune 100 --pairs 3 "${@:2}"
}
reasoning() { compare reasoning --data scenes:0:4000 --lr 4e-4 --batch-size 8 --texts 8 --val-images 200 --semantic-tokens 32; }
caption() { compare caption --data scenes:0:6000 --lr 5e-4 --batch-size 16 --texts 3 --val-images 200 --semantic-tokens 64; }
retrieval() {
    compare retrieval --data scenes:0:4000 --lr 5e-4 --batch-size 32 --val-images 300 --semantic-tokens 32 \
        --momentum 0 --queue 0 --k-test 0
}

for name in ${names:-reasoning caption retrieval}; do
    "$name"
done
