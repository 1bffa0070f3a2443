#!/usr/bin/env bash
# The figures of docs/performance.md: one JSON file a claim, on a machine that does nothing else.
#   benchmarks/performance.sh OUT [ROW...]   (rows: towers merged bf16 clip caption sizes flat threads parts text attention step calibrate)
# Full-size models with random weights; temperatures are set to the reduction that is measured on what is timed.
set -euo pipefail
out=$1
rows=${*:2}
here=$(dirname "$0")
madtp=${MADTP:-madtp}
python=${PYTHON:-python}
mkdir -p "$out"

bench() { $madtp bench --semantic-tokens 200 --reduction 0.5 0.8 --json "${@:2}" >"$out/$1.json"; }

towers() {
    bench towers-1 --preset blip-base-nlvr2 --batch-size 1 --pairs 15
    bench towers-8 --preset blip-base-nlvr2 --batch-size 8 --pairs 7
}
merged() {
    bench merged-1 --preset blip-base-nlvr2 --method tome_dynamic --batch-size 1 --pairs 7
    bench merged-8 --preset blip-base-nlvr2 --method tome_dynamic --batch-size 8 --pairs 3
}
bf16() { bench bf16 --preset blip-base-nlvr2 --batch-size 8 --pairs 7 --dtype bfloat16; }
clip() { bench clip --preset clip-vit-base-16 --batch-size 32 --pairs 7; }
caption() { bench caption --preset blip-base-caption --batch-size 4 --pairs 3 --stock; }
sizes() { # 224, 336, 384 and 480 pixels
    for preset in clip-vit-base-16 clip-vit-large-336 blip-base-retrieval blip-base-vqa; do
        bench "sizes-$preset" --preset "$preset" --batch-size 1 --pairs 3
    done
}
flat() {
    bench flat --preset clip-vit-base-16 --batch-size 1 8 64 --pairs 5
    $madtp bench --semantic-tokens 200 --reduction 0.8 --json --preset blip-base-nlvr2 --batch-size 1 8 64 --pairs 3 >"$out/flat-nlvr2.json"
}
threads() { for n in 1 2; do bench "threads-$n" --preset blip-base-nlvr2 --batch-size 1 --pairs 3 --threads "$n"; done; }
parts() { $python "$here/parts.py" --preset blip-base-nlvr2 --reduction 0.5 0.8 >"$out/parts.json"; }
text() { $python "$here/text_tower.py" >"$out/text.json"; }
attention() { $python "$here/attention.py" >"$out/attention.json"; }
step() { $python "$here/train_step.py" >"$out/step.json"; }
calibrate() { $python "$here/calibration.py" >"$out/calibration.json"; }

for row in ${rows:-towers merged bf16 clip caption sizes flat threads parts text attention step calibrate}; do
    "$row"
done
