# Sourced by the scripts that train: in $out a run that ended is left alone, one that was cut short goes on.
# One thread: results then do not depend on the number of cores.
madtp=${MADTP:-madtp}
python=${PYTHON:-python}
here=$(dirname "${BASH_SOURCE[0]}")
export OMP_NUM_THREADS=1

# train or compress, name of the run, options
run() {
    local to=$out/$2 more=()
    if [ -e "$to/report.json" ]; then return; fi
    # one that was begun and has no checkpoint begins anew; a folder that is no run at all is left to madtp to refuse
    if [ -e "$to/checkpoint.pt" ]; then more=(--resume); elif [ -e "$to/run.json" ]; then rm -r "$to"; fi
    $madtp "$1" --out "$to" "${@:3}" "${more[@]}"
}
# the model that is bundled with madtp
bundled() { $python -c 'import madtp, pathlib; print(pathlib.Path(madtp.__file__).parent / "assets" / "demo-vqa")'; }
