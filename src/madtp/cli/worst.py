"""The examples of a split that pruning cost an answer: `madtp view --worst`."""

from pathlib import Path
from typing import Any

from madtp.cli import common
from madtp.errors import InputError


def figures_of(seen: Any) -> dict[str, Any]:
    """The numbers of one example."""
    return {
        "answer": {"dense": seen.dense, "pruned": seen.pruned},
        "gflops": {"dense": seen.gflops_dense, "mean": seen.gflops, "reduction": seen.reduction},
        "kept": {tower.name: [int(step.kept.sum()) for step in tower.steps] for tower in seen.towers},
    }


def show_worst(run: Any, count: int, split: str, limit: int | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """The examples of a split that pruning made worse, each drawn, and the page of all.

    Args:
        run: model, task, data and how it is to prune, as `view` was asked.
        count: most examples.
        split: of the data.
        limit: only the first so many pictures of it; None = all.
        out: folder to write into.
        overwrite: though it holds something.
        as_json: print the result as JSON.

    Raises:
        InputError: nothing is known of the split; a picture that cannot be read, or too many.
    """
    from madtp.cli.common import load_data
    from madtp.files import atomic_write, claim_folder
    from madtp.report import settings
    from madtp.report.table import left_out
    from madtp.report.view_page import worst_page
    from madtp.report.write_view import write_view
    from madtp.view import compare

    work = run.work
    assert run.data is not None
    faults = run.faults
    some = load_data(work.name, run.data, split, limit=limit, skip_missing=run.skip_missing, faults=faults)
    if some.hidden and some.hidden >= some.n_texts:
        raise InputError("what is true of this split is not in its files", "--split", "use val")
    claim_folder(out, overwrite)
    source, how = run.settle()
    with common.progress(f"dense and pruned on {some.name} {split}", 2 * len(some)) as advance:
        both = compare(
            run.network,
            work,
            some,
            reference=run.reference,
            batch_size=run.batch_size,
            advance=advance,
            faults=faults,
        )
    made = settings()
    pages: list[tuple[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with common.progress("drawing", min(count, len(both.lost))) as advance:
        for lost in both.lost:
            if len(rows) == count:
                break
            place = f"{len(rows) + 1:02d}"
            try:
                seen, truth = _looked_at(run, some, lost, how)
            except InputError as error:  # it was there when it was answered
                if not faults.skip:
                    raise
                faults.note(split, "sample", lost.dense.image_id, str(error))
                faults.check(split, "sample", len(some))
                continue
            write_view(out / place, seen, made)
            pages.append((f"{place}/view.html", seen))
            rows.append(
                {
                    "id": lost.dense.id,
                    "image_id": lost.dense.image_id,
                    "text": lost.dense.text or None,
                    "truth": truth,
                    "marks": {"dense": lost.marks[0], "pruned": lost.marks[1]},
                    **figures_of(seen),
                    "page": f"{place}/view.html",
                }
            )
            advance(1)
    n, metric = len(both.dense.predictions), work.higher_is_better
    told = [
        f"{run.name} on {some.name} ({split}), {n} {work.text_name}: {metric} "
        f"{100 * both.dense.metrics[metric]:.1f} dense, {100 * both.pruned.metrics[metric]:.1f} pruned, "
        f"{100 * both.pruned.reduction:.0f}% fewer GFLOPs (temperature {run.network.temperature:.4g}: {how}).",
        f"Pruning made {len(both.lost)} worse and {both.gained} better; "
        f"{'the worst ' if work.mark_name else ''}{len(rows)} of them are here.",
    ]
    skipped = faults.counts()
    if skipped:
        told.append(f"{left_out(skipped).capitalize()}, named in errors.jsonl.")
    faults.attach(out)
    atomic_write(out / "worst.html", worst_page(f"Where pruning costs most: {some.name}", told, pages, made))
    result = {
        "task": work.name,
        "model": run.name,
        "data": some.name,
        "split": split,
        "n": n,
        "temperature": run.network.temperature,
        "temperature_from": source,
        "reduction_asked": run.reduction,
        "gflops": both.pruned.to_dict()["gflops"],
        "metrics": {"dense": both.dense.metrics, "pruned": both.pruned.metrics},
        "lost": len(both.lost),
        "gained": both.gained,
        "worst": rows,
        "skipped": skipped,
        "out": str(out),
    }
    common.emit(result, as_json, "\n".join([*told, str(out / "worst.html")]))


def _looked_at(run: Any, some: Any, lost: Any, how: str) -> tuple[Any, str]:
    """One of them, and its true answer in words."""
    from madtp.view import look

    work = run.work
    pixels, sample, texts = work.dataset(some)[lost.sample]
    (dense, truth), (pruned, _) = work.words_for(lost.dense), work.words_for(lost.pruned)
    found = (("dense", dense), ("pruned", pruned)) if work.name == "retrieval" else ()
    pictures = {sample.image_id: sample.images[0] for sample in some.samples} if found else {}
    seen = look(
        run.network,
        work,
        (pixels, sample, texts[lost.text : lost.text + 1]),
        answers=some.answers,
        name=run.name,
        how=how,
        said=(dense, pruned, truth),
        marks=lost.marks,
        found=[(f"{who} ranks this first", pictures[of]) for who, of in found],
        reference=run.reference,
    )
    return seen, truth
