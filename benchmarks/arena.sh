#!/usr/bin/env bash
# The first table of docs/comparison.md: every method at the same measured GFLOPs on easy-VQA, as it is and trained alike.
#   benchmarks/arena.sh DATA OUT [SEEDS]          (about two hours of one core with one seed)
# One thread: results then do not depend on the number of cores.
set -euo pipefail
data=$1 out=$2 seeds=${3:-1}
madtp=${MADTP:-madtp}
export OMP_NUM_THREADS=1
"$(dirname "$0")/easy_vqa.sh" "$data" "$out" dense
# A little more than the budget: what is measured on test, which is touched here once a row, shall not fall short.
$madtp compare --model "$out/dense" --data "$data" --reduction 0.51,0.81 --seeds "$seeds" --epochs 2 --batch-size 16 \
    --lr 3e-4 --texts 4 --semantic-tokens 32 --out "$out/compare" \
    --methods dense,downsample,random,class_attention,tome,crossget,elip,upop,madtp,madtp_robust,madtp:alignment=contrastive
