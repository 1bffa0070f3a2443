#!/usr/bin/env bash
# The easy-VQA rows of docs/results.md: a dense model from scratch, then every method at two budgets, trained alike.
#   benchmarks/easy_vqa.sh DATA OUT          (about two hours on two cores)
set -euo pipefail
data=$1 out=$2
madtp=${MADTP:-madtp}
mkdir -p "$out"
$madtp train --task vqa --data "$data" --size tiny --out "$out/start" --seed 0 \
    --epochs 8 --tag-epochs 3 --batch-size 16 --questions 4 --lr 1e-3
$madtp train --task vqa --data "$data" --model "$out/start" --out "$out/dense" --seed 0 \
    --epochs 4 --batch-size 16 --questions 0 --lr 6e-4
for method in madtp class_attention random; do
    for reduction in 0.5 0.8; do
        $madtp compress --task vqa --model "$out/dense" --data "$data" --method $method --reduction $reduction \
            --out "$out/$method-$reduction" --seed 0 --epochs 2 --batch-size 16 --questions 0 --lr 3e-4 --semantic-tokens 32
    done
done
for run in dense {madtp,class_attention,random}-{0.5,0.8}; do # the test split is touched here, once a row
    $madtp evaluate --model "$out/$run" --data "$data" --split test --json | tail -n 1 >"$out/$run.json"
done
