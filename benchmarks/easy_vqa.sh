#!/usr/bin/env bash
# The easy-VQA rows of docs/results.md: a dense model from scratch, then every method at two budgets, trained alike.
#   benchmarks/easy_vqa.sh DATA OUT [dense]          (about two hours on one core; dense: the dense model alone)
# Several of the last runs may go side by side.
set -euo pipefail
data=$1 out=$2
. "$(dirname "$0")/runs.sh"
mkdir -p "$out"
run train start --task vqa --data "$data" --size tiny --seed 0 --epochs 8 --tag-epochs 3 --batch-size 16 --questions 4 --lr 1e-3
run train dense --task vqa --data "$data" --model "$out/start" --seed 0 --epochs 4 --batch-size 16 --questions 0 --lr 6e-4
[ "${3:-}" != dense ] || exit 0
run train dense-longer --task vqa --data "$data" --model "$out/dense" --seed 0 \
    --epochs 2 --batch-size 16 --questions 0 --lr 3e-4 # as long as the pruned ones
for each in madtp:0 madtp:1 madtp:2 class_attention:0 class_attention:1 class_attention:2 random:0; do
    method=${each%:*} seed=${each#*:}
    for budget in 0.5:0.51 0.8:0.81; do # a little more than the budget: what is measured on test shall not fall short
        run compress "$method-${budget%:*}-seed$seed" --task vqa --model "$out/dense" --data "$data" --method "$method" \
            --reduction "${budget#*:}" --seed "$seed" --epochs 2 --batch-size 16 --questions 0 --lr 3e-4 --semantic-tokens 32
    done
done
for each in dense dense-longer {madtp,class_attention}-0.{5,8}-seed{0,1,2} random-0.{5,8}-seed0; do
    # the test split is touched here, once a row
    $madtp evaluate --model "$out/$each" --data "$data" --split test --json >"$out/$each.json"
done
$python "$here/table.py" "$out"/*.json
