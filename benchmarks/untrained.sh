#!/usr/bin/env bash
# The table of docs/comparison.md without training: dense models of generated scenes, every method at the same budgets.
#   benchmarks/untrained.sh SCENES OUT [NAME...]   (SCENES: OUT of scenes_tasks.sh; names: vqa reasoning caption retrieval clip)
# vqa is the bundled model; retrieval is not ranked anew by its matching head. A quarter of an hour on one core each.
set -euo pipefail
scenes=$1 out=$2
names=${*:3}
. "$(dirname "$0")/runs.sh"

for name in ${names:-vqa reasoning caption retrieval clip}; do
    model=$scenes/$name-dense more=()
    if [ "$name" = vqa ]; then model=$(bundled); fi
    if [ "$name" = retrieval ]; then more=(--k-test 0); fi
    $madtp compare --model "$model" --data scenes --limit 200 --tune 200 --pairs 3 --reduction 0.31,0.51,0.81 \
        --methods dense,downsample,random,class_attention,tome,tome_dynamic,madtp,madtp_nearest --out "$out/$name" "${more[@]}"
done
