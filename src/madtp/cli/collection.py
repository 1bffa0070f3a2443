"""What `madtp predict --data` does: answers about a collection, on this machine or a Ray cluster."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Collection: folder of pictures, parquet files or tars.", show_default=False),
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", help="The model's; for a collection caption, embed, vqa or rank.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Collection: folder of the answers; a stopped job goes on there.", show_default=False),
]
EngineOption = Annotated[str, typer.Option("--engine", help="Collection: local (one process) or ray.")]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray: of the cluster; default: this machine.", show_default=False)
]
ActorsOption = Annotated[
    int | None,
    typer.Option("--actors", min=1, help="Ray: most models at once; default: as there is room.", show_default=False),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Collection, on the CPU: cores of a model; default: torch's, Ray 1.",
        show_default=False,
    ),
]
PartOption = Annotated[int, typer.Option("--part-size", min=1, help="Collection: pictures a file of answers.")]
ChoicesOption = Annotated[
    Path | None,
    typer.Option("--choices", help="rank: file of texts to choose from, one a line.", show_default=False),
]


def predict(
    data: str,
    out: Path | None,
    model: str,
    task: str | None,
    text: str | None,
    choices: Path | None,
    engine: str,
    address: str | None,
    actors: int | None,
    *,
    as_json: bool,
    device: str,
    dtype: str,
    temperature: float | None,
    reduction: float | None,
    **options: Any,
) -> None:
    """Answer about a collection what is not answered yet."""
    from madtp.collection.job import TASKS, Job
    from madtp.collection.run import Cluster, run
    from madtp.data.files import read_answers
    from madtp.data.sample import is_text
    from madtp.model.precision import number_type
    from madtp.model.shape import kind_of

    if out is None:
        raise InputError("is missing", "--out", "name a folder for the answers")
    if engine != "ray" and (address or actors):
        raise InputError("goes with --engine ray", "--address" if address else "--actors", "add it")
    number_type(dtype)
    # A cluster may have the GPUs that this machine has not.
    place = "cuda" if engine == "ray" and device == "cuda" else common.pick_device(device)
    network, processor = common.load_model(model)
    kind = kind_of(network)
    common.set_budget(network, temperature, reduction)
    if reduction is not None:
        temperature = network.temperature or 0
    del network
    task = task or {"caption": "caption", "vqa": "vqa", "retrieval": "embed", "clip": "embed"}.get(kind)
    if task not in TASKS:
        what = f"{task!r} is nothing for a collection" if task else f"{model} is for {kind}: nothing for a collection"
        raise InputError(what, "--task", f"use one of {', '.join(TASKS)}")
    if (choices is None) == (task == "rank"):
        fix = "name a file, one text a line" if choices is None else "leave it out"
        raise InputError("is missing" if choices is None else f"is nothing for {task}", "--choices", fix)
    if text is not None and (kind != "vqa" or not (is_text(text) and text.strip())):
        said = "is no text" if kind == "vqa" else f"is nothing for {task} with a model for {kind}"
        raise InputError(said, "--text", "a question to ask of every picture" if kind == "vqa" else "leave it out")
    job = Job(
        common.resolved(model), task, out.resolve(), text=text, choices=read_answers(choices) if choices else (),
        device=place, dtype=dtype, kind=kind, temperature=temperature, **options,
    )  # fmt: skip
    if kind not in job.kinds:
        raise InputError(f"is a model for {kind}", model, f"{task} takes one for {' or '.join(job.kinds)}")
    # may refuse
    common.make_task("retrieval" if kind == "clip" else kind, processor, prompt=job.prompt, beams=job.beams)
    with common.progress(f"{task} of {data}", None) as advance:
        cluster = Cluster(address, actors)
        ended = run(
            job,
            data,
            engine=engine,
            cluster=cluster,
            done=lambda written: advance(written["share"], written["part"], written["inputs"]),
        )
    result = {"task": task, "model": model, "data": data, "out": str(out), "engine": engine, **ended}
    before = f", {ended['parts_before']} parts were there" if ended["parts_before"] else ""
    said = f"{out}: {ended['rows']} answers in {ended['parts']} parts{before}; {ended['errors']} inputs were wrong"
    common.emit(result, as_json, f"{said} (errors.parquet)" if ended["errors"] else said)
    if ended["errors"] and not ended["rows"] + ended["parts_before"]:
        raise InputError("none of it could be used", data, f"{out / 'errors.parquet'} says why")
