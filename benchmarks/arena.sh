#!/usr/bin/env bash
# The trained tables of docs/comparison.md and docs/experiments.md on easy-VQA: every row is made from one dense model.
#   benchmarks/arena.sh DATA OUT [SEEDS] [ROW...]
#   (rows: dense methods parts starts any unaligned; with one seed about five hours on one core, methods alone three)
# Once `dense` is there, the other rows may go side by side.
set -euo pipefail
data=$1 out=$2 seeds=${3:-1}
rows=${*:4}
. "$(dirname "$0")/runs.sh"
same=(--data "$data" --epochs 2 --batch-size 16 --lr 3e-4 --texts 4 --semantic-tokens 32)
# A little more than the budget: what is measured on test, which is touched here once a row, shall not fall short.
compare() { $madtp compare --model "$out/dense" "${same[@]}" --seeds "$seeds" --out "$out/$1" "${@:2}"; }

dense() { "$here/easy_vqa.sh" "$data" "$out" dense; }
# every method at the same measured GFLOPs, as it is and trained alike
methods() {
    local rivals=dense,downsample,random,class_attention,tome,tome_dynamic,crossget,elip,upop
    compare compare --reduction 0.51,0.81 --methods "$rivals,madtp,madtp_nearest,madtp_robust,madtp:alignment=contrastive"
}
# MADTP with one part or setting changed
parts() {
    local changed=madtp,madtp_unguided,madtp_no_class,madtp_no_self,madtp_no_token,madtp_static,madtp_drop,madtp_batch_max
    for setting in semantic_tokens=10 semantic_tokens=100 semantic_tokens=200 alpha=0 alpha=0.03 alpha=0.3 alpha=1 \
        first_block=1 straight_through=0.3; do
        changed+=,madtp:$setting
    done
    compare parts --reduction 0.81 --methods "$changed"
}
# where pruning starts, at half: at a fifth it cannot start late
starts() { compare starts --reduction 0.51 --methods madtp,madtp:first_block=1,madtp:first_block=2; }
# one of the parts alone
unaligned() { compare compare --reduction 0.81 --methods madtp:alpha=0; }
# one model for any budget, beside models trained for one budget each
any() {
    local pruned=(--model "$out/dense" "${same[@]}")
    run compress any "${pruned[@]}" --reduction 0,0.31,0.51,0.71,0.81
    run compress any-longer "${pruned[@]}" --epochs 6 --reduction 0,0.31,0.51,0.71,0.81
    for budget in 0.31 0.51 0.61 0.71 0.81; do
        run compress "only-$budget" "${pruned[@]}" --reduction "$budget"
        judge "only-$budget" --model "$out/only-$budget"
        for each in any any-longer; do
            # one that its curve does not reach has no row (exit code 2); the message says what it reaches
            judge "$each-$budget" --model "$out/$each" --reduction "$budget" || missed $? "$out/$each-$budget.json"
        done
    done
    $python "$here/table.py" "$out"/{any,any-longer,only}-0.*.json
}
judge() { $madtp evaluate "${@:2}" --data "$data" --split test --json >"$out/$1.json"; }
missed() {
    rm "$2"
    [ "$1" = 2 ]
}
for row in ${rows:-dense methods parts starts any}; do
    "$row"
done
