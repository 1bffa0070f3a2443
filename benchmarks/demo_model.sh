#!/usr/bin/env bash
# The model that the package carries: generated scenes, one checkpoint for dense, 0.5 and 0.8.
#   benchmarks/demo_model.sh OUT             (about two hours on one core)
# One thread: results then do not depend on the number of cores.
set -euo pipefail
out=$1
madtp=${MADTP:-madtp}
export OMP_NUM_THREADS=1
mkdir -p "$out"
$madtp train --task vqa --data scenes --size tiny --out "$out/start" --seed 0 \
    --epochs 9 --tag-epochs 3 --batch-size 16 --questions 4 --lr 1e-3
$madtp train --task vqa --data scenes:0:28000 --model "$out/start" --out "$out/dense" --seed 0 \
    --epochs 4 --batch-size 16 --questions 0 --lr 8e-4
$madtp compress --task vqa --model "$out/dense" --data scenes --reduction 0,0.5,0.8 --out "$out/demo-vqa" --seed 0 \
    --epochs 3 --batch-size 16 --questions 0 --lr 3e-4 --semantic-tokens 64
# What the package carries is this folder's model: config.json, model.safetensors and the processor's files.
