"""What the verbs share: option types, loading with good errors, progress, and the last word on stdout."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from madtp.errors import InputError
from madtp.pace import watched

stderr = Console(stderr=True)
stdout = Console()


def one_of(*words: str) -> Callable[[str], list[str]]:
    """What a shell offers for an option's value."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


# Not asked of torch's side of the house: a shell does not wait for it. A test holds them to what there is.
SPLIT_NAMES = ("train", "val", "test")
_OURS, _RIVALS = ("madtp", "madtp_nearest"), ("class_attention", "random", "tome", "tome_dynamic", "crossget", "elip")
METHOD_NAMES = (*_OURS, *_RIVALS, "downsample", "upop")

TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="vqa, reasoning, caption, retrieval; default: the model's.",
        show_default=False,
        autocompletion=one_of("vqa", "reasoning", "caption", "retrieval"),
    ),
]
ModelOption = Annotated[str, typer.Option("--model", help="Model folder or hub id.", show_default=False)]
DataOption = Annotated[
    str,
    typer.Option(
        "--data", help="Folder or file (docs/data.md), or scenes[:SEED[:N_TRAIN]] (generated).", show_default=False
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", help="Change the method.", show_default=False, autocompletion=one_of(*METHOD_NAMES)),
]
OutOption = Annotated[Path, typer.Option("--out", help="Output folder.", show_default=False)]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images a batch.")]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda.", autocompletion=one_of("auto", "cpu", "cuda"))
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="float32, bfloat16, or int8 (CPU, with the extra quant).",
        autocompletion=one_of("float32", "bfloat16", "int8"),
    ),
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", help="Instead of the model's own; 0 = dense.", show_default=False)
]
ReductionOption = Annotated[
    float | None,
    typer.Option(
        "--reduction", help="The same by the curve that is stored with the model; 0 = dense.", show_default=False
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Fixes weights, order and draws.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first so many images.", show_default=False)
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds another run.")]
OnErrorOption = Annotated[
    str, typer.Option("--on-error", help="What to do about faulty data: stop, or skip it and count it.")
]
MaxSkippedOption = Annotated[
    float, typer.Option("--max-skipped", min=0.0, max=1.0, help="Share of a split that --on-error skip may skip.")
]
SkipOption = Annotated[bool, typer.Option("--skip-missing", help="Leave out samples whose pictures are not there.")]
InferenceOption = Annotated[
    str | None,
    typer.Option(
        "--inference",
        help="VQA: generate, or rank over the data's answer list.",
        show_default=False,
        autocompletion=one_of("generate", "rank"),
    ),
]
PromptOption = Annotated[
    str | None, typer.Option("--prompt", help="Captioning: begins every caption.", show_default=False)
]
BeamsOption = Annotated[
    int | None, typer.Option("--beams", min=1, help="Captioning: beams of the search.", show_default=False)
]
RerankOption = Annotated[
    int | None,
    typer.Option(
        "--k-test", min=0, help="Retrieval: re-rank so many by the matching head; 0 = none.", show_default=False
    ),
]


def make_faults(on_error: str, max_skipped: float) -> Any:
    """What to do about faulty data. Raises InputError."""
    from madtp.data.faults import Faults

    return Faults(on_error, max_skipped)


def check_task(task: str | None) -> None:
    """Raises InputError for a task that is not there; None is the model's own."""
    from madtp.data.load import TASKS

    if task is not None and task not in TASKS:
        raise InputError(f"unknown task {task!r}", "--task", f"use one of {', '.join(TASKS)}")


def pick_device(device: str) -> str:
    """cpu or cuda. Raises InputError for anything else, or if there is no GPU."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise InputError(f"unknown device {device!r}", "--device", "use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no GPU is there", "--device", "use cpu")
    return device


def load_model(model: str, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """A model in evaluation mode and its processor. Raises InputError."""
    from madtp.model.load import load, load_processor
    from madtp.model.precision import ready

    with working(f"loading {model}"):
        return ready(load(model), pick_device(device), dtype), load_processor(model)


def set_budget(network: Any, temperature: float | None, reduction: float | None) -> None:
    """Set what was asked for; neither = leave the model's own.

    Raises:
        InputError: both are given, or the model cannot be set to it.
    """
    if temperature is not None and reduction is not None:
        raise InputError("goes without --temperature", "--reduction", "give one of them")
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise InputError(f"{temperature:g} is not above 0 and finite", "--temperature", "use 0 for dense")
    if reduction is not None:
        network.set_reduction(reduction)
    elif temperature is not None:
        network.temperature = temperature or None


def load_data(task: str, source: str, split: str, **how: Any) -> Any:
    """`madtp.data.load.load_data`, with a sign of life: the lists of a large set take their time. Raises InputError."""
    from madtp.data.load import load_data as load

    with working(f"reading {source} {split}"):
        return load(task, source, split, **how)


def resolved(model: str) -> str:
    """The folder's own path, or the hub id."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def task_of(network: Any, asked: str | None, model: str) -> str:
    """The model's task. Raises InputError if another was asked for."""
    from madtp.task.registry import task_name

    name = task_name(network)
    if asked not in (None, name):
        raise InputError(f"is a model for {name}, not for {asked}", model, f"use --task {name} or another model")
    return name


def make_task(name: str, processor: Any, **options: Any) -> Any:
    """The task object; options that are None are left to it. Raises InputError."""
    from madtp.task.registry import make_task as make

    return make(name, processor, **options)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar with ETA on stderr, silent when piped; yields `advance(n, note, total)`, a total that is known late."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not stderr.is_terminal or not is_first()
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=stderr, disable=quiet) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(n: float = 1, note: str | None = None, total: int | None = None) -> None:
            bar.update(task, advance=n, total=total)
            if note is not None:
                bar.update(task, note=note)

        yield advance


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life with the time gone by, and how far work is that tells of it; on stderr, silent when piped."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    quiet = not stderr.is_terminal or not is_first()
    with Progress(*columns, TimeRemainingColumn(), console=stderr, disable=quiet, transient=True) as sign:
        task, known = sign.add_task(what, total=None), 0.0

        def watch(done: float, more: float) -> None:
            nonlocal known
            known += more
            sign.update(task, advance=done, total=known)

        with watched(watch):
            yield


def tracked(batches: Iterable[Any], advance: Callable[..., None]) -> Iterator[Any]:
    """The batches one by one, a bar moving on by the samples of each that is done."""
    for batch in batches:
        yield batch
        advance(len(batch["samples"]))


def start_processes(device: str) -> None:
    """Join the other processes where torchrun has started several; in one, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


def is_first() -> bool:
    """False in all but the first of several processes."""
    return os.environ.get("RANK", "0") == "0"


def emit(result: dict[str, Any], as_json: bool, text: Any) -> None:
    """The result: one JSON object on stdout, or `text` for a reader; said by the first of several processes."""
    if not is_first():
        return
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        stdout.print(text, markup=False)


def summary(result: dict[str, Any], title: str) -> Any:
    """A small table of an evaluation for a reader."""
    from rich.table import Table

    from madtp.report.table import score

    table = Table(title=title, show_header=False)
    gflops, tokens = result["gflops"], result["tokens"]
    for name, value in result["metrics"].items():
        table.add_row(name, f"{score(name, value, 2)}  (n={result['n']}, {result['split']})")
    for name, value in (result.get("scoring") or {}).items():
        if value:
            told = value.items() if isinstance(value, dict) else [(value, "")]
            said = [f"{key} {100 * of:.2f}%" if isinstance(of, float) else f"{key} {of}".strip() for key, of in told]
            table.add_row(name.replace("_", " "), ", ".join(said))
    table.add_row(
        "GFLOPs",
        f"{gflops['mean']:.4g} of {gflops['dense']:.4g} dense (p50 {gflops['p50']:.4g}, p95 {gflops['p95']:.4g})",
    )
    table.add_row("reduction", f"{gflops['reduction']:.3f}")
    table.add_row("tokens kept", f"{100 * tokens['kept_fraction']:.1f}% of the image's, mean over blocks")
    if skipped := result.get("skipped"):
        table.add_row("skipped, faulty", ", ".join(f"{count} of {split}" for split, count in skipped.items()))
    table.add_row("seconds", f"{result['seconds']:.1f}")
    return table
