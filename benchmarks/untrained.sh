#!/usr/bin/env bash
# The table of docs/comparison.md without training: dense models of generated scenes, every method at the same budgets.
#   benchmarks/untrained.sh SCENES OUT [NAME...]   (SCENES: OUT of scenes_tasks.sh; names: vqa reasoning caption retrieval clip)
# vqa is the bundled model. A quarter of an hour on one core each; retrieval, which ranks anew by its matching head, one hour.
set -euo pipefail
scenes=$1 out=$2
names=${*:3}
. "$(dirname "$0")/runs.sh"

for name in ${names:-vqa reasoning caption retrieval clip}; do
    model=$scenes/$name-dense
    if [ "$name" = vqa ]; then model=$(bundled); fi
    $madtp compare --model "$model" --data scenes --limit 200 --tune 100 --pairs 3 --reduction 0.3,0.5,0.8 \
        --methods dense,downsample,random,class_attention,tome,tome_dynamic,madtp,madtp_nearest --out "$out/$name"
done
