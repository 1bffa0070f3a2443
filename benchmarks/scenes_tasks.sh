#!/usr/bin/env bash
# The rows of docs/results.md for statements, captions and retrieval on generated scenes: dense, half and a fifth.
#   benchmarks/scenes_tasks.sh OUT           (about three hours on one core)
# Dense models start from the towers of the bundled VQA model, which has learned to see the same kind of scenes.
# One thread: results then do not depend on the number of cores.
set -euo pipefail
out=$1
madtp=${MADTP:-madtp}
start=${START:-$(python -c 'import madtp, pathlib; print(pathlib.Path(madtp.__file__).parent / "assets" / "demo-vqa")')}
export OMP_NUM_THREADS=1
mkdir -p "$out"

# name, task, size; options of train, of compress, of both, of evaluate; of compressing to half alone
row() {
    local name=$1 task=$2 size=$3 train=$4 compress=$5 both=$6 test=$7 half=${8:-}
    # shellcheck disable=SC2086
    $madtp train --task "$task" --size "$size" --start "$start" --out "$out/$name-dense" $train $both
    for budget in half:0.51 fifth:0.81; do # a little more than the budget: what is measured on test shall not fall short
        local mild=$half
        [[ $budget == half:* ]] || mild=
        # shellcheck disable=SC2086
        $madtp compress --model "$out/$name-dense" --reduction "${budget#*:}" --out "$out/$name-${budget%:*}" \
            $compress $both $mild
    done
    for run in dense half fifth; do
        # the test split is touched here, once a row
        # shellcheck disable=SC2086
        $madtp evaluate --model "$out/$name-$run" --data scenes --split test --json $test >"$out/$name-$run.json"
    done
    python "$(dirname "$0")/table.py" "$out/$name"-{dense,half,fifth}.json
}
row reasoning reasoning tiny "--epochs 5 --lr 8e-4" "--epochs 3 --lr 4e-4" \
    "--data scenes:0:6000 --batch-size 8 --texts 8 --val-images 200" ""
row caption caption tiny "--epochs 5 --lr 1e-3" "--epochs 3 --lr 5e-4" \
    "--data scenes:0:6000 --batch-size 16 --texts 3 --val-images 200" "" "--semantic-tokens 64" # 32 cannot prune as little
row retrieval retrieval tiny "--epochs 6 --lr 1e-3 --momentum 0.99 --queue 2048" \
    "--epochs 2 --lr 4e-4 --momentum 0 --queue 0" "--data scenes:0:8000 --batch-size 32 --val-images 300" "--k-test 0"
row clip retrieval clip-tiny "--epochs 6 --lr 1e-3" "--epochs 2 --lr 5e-4" \
    "--data scenes:0:8000 --batch-size 64 --momentum 0 --queue 0 --val-images 300" ""
# as long as the pruned ones, for a fair rival
$madtp train --model "$out/retrieval-dense" --out "$out/retrieval-longer" --epochs 2 --lr 4e-4 --momentum 0 --queue 0 \
    --data scenes:0:8000 --batch-size 32 --val-images 300
$madtp evaluate --model "$out/retrieval-longer" --data scenes --split test --json --k-test 0 >"$out/retrieval-longer.json"
