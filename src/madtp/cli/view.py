"""`madtp view`: what pruning did to an example, and the examples that it cost most."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

MEASURED = 200  # images that a reduction is measured on, as in `madtp calibrate`


def view(
    model: common.ModelOption,
    out: common.OutOption,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="Image file; twice for a statement about two.", show_default=False),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="The question, statement or caption.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="To measure --reduction on, or to find --worst in.", show_default=False),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option("--worst", min=1, help="So many examples that pruning costs an answer.", show_default=False),
    ] = None,
    reduction: Annotated[
        float | None,
        typer.Option(
            "--reduction", help="Share of the GFLOPs to save, instead of the model's own.", show_default=False
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Instead of the model's own.", show_default=False)
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            "--dense",
            help="Dense model to compare with; default: the same weights, without pruning.",
            show_default=False,
        ),
    ] = None,
    task: common.TaskOption = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="Of --data, to find --worst in: train, val or test.",
            autocompletion=common.one_of(*common.SPLIT_NAMES),
        ),
    ] = "test",
    limit: common.LimitOption = None,
    inference: common.InferenceOption = None,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    k_test: common.RerankOption = None,
    batch_size: common.BatchOption = 32,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    skip_missing: common.SkipOption = False,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Show what was pruned: of one example, or (--data, --worst) where dense is right and pruned is wrong.

    Writes pictures (PNG, SVG) and a page. --reduction R is measured on the val split of --data where that is given,
    else read off the curve that is stored with the model; where there is none, measured on the example itself.
    """
    from madtp.cost.budget import check_reduction
    from madtp.files import claim_folder
    from madtp.report import check_plots

    common.check_task(task)
    _check(image, text, data, worst, reduction, temperature)
    if reduction is not None:
        check_reduction(reduction)
    check_plots()
    network, processor = common.load_model(model, device, dtype)
    task = common.task_of(network, task, model)
    work = common.make_task(task, processor, inference=inference, prompt=prompt, beams=beams, k_test=k_test)
    if temperature is not None:
        network.temperature = temperature
    if network.temperature is None and reduction is None:
        raise InputError("is dense, so nothing is pruned", model, "add --reduction 0.5, or name a pruned model")
    reference = None
    if dense is not None:
        reference = dense, common.load_model(dense, device, dtype)[0]
        common.task_of(reference[1], task, dense)
    run = _Run(model, network, work, reference, data, reduction, temperature, batch_size, skip_missing)
    if worst is not None:
        _worst(run, worst, split, limit, out, overwrite, as_json)
        return
    if task == "caption" and text is not None:
        raise InputError("is nothing for caption", "--text", "leave it out; --prompt begins a caption")
    if task != "caption" and not (text or "").strip():
        raise InputError("is missing", "--text", f"{task} needs a text")
    item = work.example(image or [], text or "")
    claim_folder(out, overwrite)
    _one(run, item, image or [], out, as_json)


def _check(
    image: list[str] | None,
    text: str | None,
    data: str | None,
    worst: int | None,
    reduction: float | None,
    temperature: float | None,
) -> None:
    """Raises InputError where the options do not go together."""
    from madtp.data.sample import is_text

    if text is not None and not is_text(text):
        raise InputError("is not UTF-8", "--text", "use a terminal that writes UTF-8")
    if worst is not None and data is None:
        raise InputError("is missing", "--data", "--worst finds its examples there")
    if worst is not None and (image or text is not None):
        raise InputError("goes without --image and --text", "--worst", "it takes its examples from --data")
    if worst is None and not image:
        raise InputError("is missing", "--image", "name a picture, or --data and --worst 20")
    if worst is None and data is not None and reduction is None:
        raise InputError("is of no use here", "--data", "add --reduction to measure it there, or --worst 20")
    if reduction is not None and temperature is not None:
        raise InputError("goes without --temperature", "--reduction", "give one of them")
    if temperature is not None and not temperature > 0:
        raise InputError(f"{temperature:g} is dense, so nothing is pruned", "--temperature", "use a number above 0")


@dataclass
class _Run:
    """A model, how it is to prune, and the dense model it is compared with; None = itself, dense."""

    name: str
    network: Any
    work: Any
    reference: Any
    data: str | None
    reduction: float | None
    temperature: float | None
    batch_size: int
    skip_missing: bool

    def settle(self, item: Any = None) -> tuple[str, str]:
        """Set the temperature; says where it is from in a word and in words."""
        from madtp.calibration import calibrate
        from madtp.cli.common import load_data
        from madtp.evaluate import batches, to_device

        if self.reduction is None:
            if self.temperature is not None:
                return "temperature", "as asked for"
            return "model", "the model's own"
        curve = self.network.pruning.curve
        if self.data is None and curve is not None:
            self.network.set_reduction(self.reduction)
            return "curve", f"for {self.reduction:g} by the model's curve, measured on {curve.data}"
        if self.data is not None:
            some = load_data(self.work.name, self.data, "val", limit=MEASURED, skip_missing=self.skip_missing)
            with common.progress("reading", len(some)) as advance:
                ready = list(common.tracked(batches(self.work, some, self.batch_size, self.network.device), advance))
            source, where = "data", f"on {some.n_texts} {self.work.text_name} of {some.name} (val), measured"
        else:
            ready = [to_device(self.work.collate([item]), self.network.device)]
            source, where = "example", "on this example alone, measured"
        with common.progress(f"finding the temperature of {self.reduction:g}", 30) as advance:
            found = calibrate(
                self.network,
                self.work,
                ready,
                self.reduction,
                mildest=True,
                tried=lambda strength, value: advance(1, f"{strength:.3g} -> {value:.3f}"),
            )
        return source, f"found to save {self.reduction:g}; saves {found.reduction:.3f} {where}"


def _one(run: _Run, item: Any, images: list[str], out: Path, as_json: bool) -> None:
    """One example of the user's own."""
    from madtp.report import settings
    from madtp.report.write_view import write_view
    from madtp.view import look

    source, how = run.settle(item)
    seen = look(run.network, run.work, item, name=run.name, how=how, reference=run.reference)
    files = write_view(out, seen, settings())
    result = {
        "task": run.work.name,
        "model": run.name,
        "method": seen.method,
        "image": images[0] if len(images) == 1 else images,
        "text": seen.text or None,
        "temperature": seen.temperature,
        "temperature_from": source,
        "reduction_asked": run.reduction,
        **_figures(seen),
        "out": str(out),
        "files": files,
    }
    saved = f"{100 * seen.reduction:.0f}% fewer GFLOPs"
    said = f"dense: {seen.dense}\npruned: {seen.pruned}  ({saved}; temperature {seen.temperature:.4g}, {how})"
    common.emit(result, as_json, f"{said}\n{out / 'view.html'}")


def _figures(seen: Any) -> dict[str, Any]:
    """The numbers of one example."""
    return {
        "answer": {"dense": seen.dense, "pruned": seen.pruned},
        "gflops": {"dense": seen.gflops_dense, "mean": seen.gflops, "reduction": seen.reduction},
        "kept": {tower.name: [int(step.kept.sum()) for step in tower.steps] for tower in seen.towers},
    }


def _worst(run: _Run, count: int, split: str, limit: int | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """The examples of a split that pruning made worse."""
    from madtp.cli.common import load_data
    from madtp.files import atomic_write, claim_folder
    from madtp.report import settings
    from madtp.report.view_page import worst_page
    from madtp.report.write_view import write_view
    from madtp.view import compare, look

    work = run.work
    assert run.data is not None
    some = load_data(work.name, run.data, split, limit=limit, skip_missing=run.skip_missing)
    if some.hidden and some.hidden >= some.n_texts:
        raise InputError("what is true of this split is not in its files", "--split", "use val")
    claim_folder(out, overwrite)
    source, how = run.settle()
    with common.progress(f"dense and pruned on {some.name} {split}", 2 * len(some)) as advance:
        both = compare(run.network, work, some, reference=run.reference, batch_size=run.batch_size, advance=advance)
    made = settings()
    pages, rows = [], []
    dataset = work.dataset(some)
    pictures = {sample.image_id: sample.images[0] for sample in some.samples}
    chosen = both.lost[:count]
    with common.progress("drawing", len(chosen)) as advance:
        for number, lost in enumerate(chosen, 1):
            pixels, sample, texts = dataset[lost.sample]
            (dense, truth), (pruned, _) = work.words_for(lost.dense), work.words_for(lost.pruned)
            found = (("dense", dense), ("pruned", pruned)) if work.name == "retrieval" else ()
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
            place = f"{number:02d}"
            write_view(out / place, seen, made)
            pages.append((f"{place}/view.html", seen))
            rows.append(
                {
                    "id": lost.dense.id,
                    "image_id": lost.dense.image_id,
                    "text": lost.dense.text or None,
                    "truth": truth,
                    "marks": {"dense": lost.marks[0], "pruned": lost.marks[1]},
                    **_figures(seen),
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
        "out": str(out),
    }
    common.emit(result, as_json, "\n".join([*told, str(out / "worst.html")]))
