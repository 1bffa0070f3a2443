"""`madtp train`: make a dense model, from scratch or from another model. Also the run that `compress` shares."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training images.")]
LrOption = Annotated[float, typer.Option("--lr", help="Peak learning rate (AdamW, warm-up, cosine).")]
QuestionsOption = Annotated[
    int, typer.Option("--questions", min=0, help="Most questions of an image an epoch; 0 = all.")
]
AccumulateOption = Annotated[int, typer.Option("--accumulate", min=1, help="Batches a step.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="no (float32), bf16 or fp16.")]
ShiftOption = Annotated[int, typer.Option("--shift", min=0, help="Move training images by up to so many pixels.")]
EvalOption = Annotated[int, typer.Option("--eval-every", min=1, help="Epochs between validations.")]
SaveOption = Annotated[int, typer.Option("--save-every", min=1, help="Steps between checkpoints.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")]


def train(
    data: common.DataOption,
    out: common.OutOption,
    task: common.TaskOption = "vqa",
    size: Annotated[
        str | None, typer.Option("--size", help="From scratch: tiny, small or base.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Fine-tune this one instead.", show_default=False)
    ] = None,
    epochs: EpochsOption = 10,
    batch_size: common.BatchOption = 16,
    lr: LrOption = 1e-3,
    questions: QuestionsOption = 6,
    tag_epochs: Annotated[
        int, typer.Option("--tag-epochs", min=0, help="First epochs for the image tower alone (from scratch).")
    ] = 0,
    accumulate: AccumulateOption = 1,
    precision: PrecisionOption = "no",
    shift: ShiftOption = 0,
    eval_every: EvalOption = 1,
    save_every: SaveOption = 100,
    limit: common.LimitOption = None,
    device: common.DeviceOption = "auto",
    seed: common.SeedOption = 0,
    resume: ResumeOption = False,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Make a dense model: from scratch with --size, or fine-tuned from --model."""
    import torch

    from madtp.data.load import load_data
    from madtp.model.sizes import SIZES, build_processor, build_vqa
    from madtp.recipe import TrainConfig

    common.check_task(task)
    if (size is None) == (model is None):
        raise InputError("give one of --size and --model", "train", "e.g. --size tiny")
    if size is not None and size not in SIZES:
        raise InputError(f"unknown size {size!r}", "--size", f"one of {', '.join(SIZES)}")
    config = TrainConfig(
        epochs, batch_size, questions, lr, accumulate=accumulate, precision=precision, shift=shift, seed=seed,
        eval_every=eval_every, save_every=save_every, tag_epochs=tag_epochs,
    )  # fmt: skip
    training, validation = load_data("vqa", data, "train", limit=limit), load_data("vqa", data, "val", limit=limit)
    torch.manual_seed(seed)
    if size is not None:
        texts = [question.text for sample in training.samples for question in sample.questions]
        texts += [answer for sample in training.samples for question in sample.questions for answer in question.answers]
        processor = build_processor(SIZES[size], texts + list(training.answers))
        network = build_vqa(SIZES[size], len(processor.tokenizer))
    else:
        network, processor = common.load_model(str(model))
        network.temperature = None
    source = {"model": common.resolved(model) if model else None, "size": size, "data": training.name, "limit": limit}
    title = f"madtp train on {data}"
    result = fit(network, processor, task, training, validation, out, config, device, resume, overwrite, title, source)
    common.emit(result, as_json, common.summary(result, f"{out}: best epoch by validation"))


def fit(
    network: Any,
    processor: Any,
    task: str,
    training: Any,
    validation: Any,
    out: Path,
    config: Any,
    device: str,
    resume: bool,
    overwrite: bool,
    title: str,
    source: dict[str, Any],
) -> dict[str, Any]:
    """Run the trainer with a progress bar; the evaluation of its best model on the validation split."""
    from dataclasses import asdict

    from madtp.files import check_folder, claimed, write_json
    from madtp.report import settings
    from madtp.train import STATE, Trainer

    place, work = common.pick_device(device), common.make_task(task, processor)  # before a run that is there is touched
    run = Trainer(network.to(place), work, training, validation, out, config, device=place, source=source)
    if resume:
        return _go(run, resume, title)
    check_folder(out, overwrite)
    run.prepare()
    with claimed(out, overwrite, STATE):
        about = {"command": title, "config": asdict(config), "source": run.source, "data": training.name}
        write_json(out / "run.json", {**about, **settings()})
        return _go(run, resume, title)


def _go(run: Any, resume: bool, title: str) -> dict[str, Any]:
    """The run with a progress bar."""
    from madtp.train import Progress

    with common.progress(title, run.steps) as advance:
        seen = 0

        def report(p: Progress) -> None:
            nonlocal seen
            advance(p.step - seen, f"epoch {p.epoch + 1} loss {p.loss:.3f} {p.note}" if p.loss == p.loss else p.note)
            seen = p.step

        run.report = report
        result = run.run(resume)
    return {
        **result.to_dict(),
        "out": str(run.out),
        "temperature": run.bare.temperature,
        "best_epoch": run.best.get("epoch"),
    }
