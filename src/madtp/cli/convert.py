"""`madtp convert`: public checkpoints to a model folder, and a model folder back to transformers' own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

MADTP, DENSE = "madtp", "hf-dense"


def convert(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint (.pth, .pt, .safetensors), or model folder.", show_default=False)
    ],
    destination: Annotated[Path, typer.Argument(help="Model folder to write.", show_default=False)],
    task: Annotated[
        str, typer.Option("--task", help="vqa, reasoning, caption, retrieval; auto: as the names in SOURCE tell.")
    ] = "auto",
    to: Annotated[
        str, typer.Option("--to", help="madtp: SOURCE is a checkpoint; hf-dense: SOURCE is a folder of ours.")
    ] = MADTP,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Attention heads, if not width / 64.", show_default=False)
    ] = None,
    start_token: Annotated[
        int | None, typer.Option("--start-token", min=0, help="Id that begins a text ([DEC]).", show_default=False)
    ] = None,
    end_token: Annotated[
        int | None, typer.Option("--end-token", min=0, help="Id that ends a text ([SEP]).", show_default=False)
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="Tokenizer to save beside, e.g. bert-base-uncased.", show_default=False),
    ] = None,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Convert SOURCE to a model folder; every tensor is accounted for, or the checkpoint is refused."""
    common.check_task(None if task == "auto" else task)
    result: dict[str, Any]
    if to == DENSE:
        from madtp.model.dense import export_dense

        given = {"--heads": heads, "--start-token": start_token, "--end-token": end_token, "--tokenizer": tokenizer}
        if unused := [flag for flag, value in given.items() if value is not None]:
            raise InputError(f"is nothing for --to {DENSE}", ", ".join(unused), "leave it out")
        with common.working(f"converting {source}"):
            dense = export_dense(source, destination, task=None if task == "auto" else task, overwrite=overwrite)
        result = {"task": dense.task, "architecture": dense.architecture, "temperature": None}
        tensors, dropped = dense.tensors, dense.dropped
    elif to == MADTP:
        from madtp.model.convert import convert as convert_checkpoint
        from madtp.model.shape import CLASSES, task_of

        with common.working(f"converting {source}"):
            info = convert_checkpoint(
                source,
                destination,
                task=task,
                heads=heads,
                start_token_id=start_token,
                end_token_id=end_token,
                tokenizer=tokenizer,
                overwrite=overwrite,
            )
        assert info.kind is not None
        result = {"task": task_of(info.kind), "architecture": CLASSES[info.kind][1], "temperature": info.temperature}
        tensors, dropped = info.tensors, info.dropped
    else:
        raise InputError(f"unknown form {to!r}", "--to", f"use {MADTP} or {DENSE}")
    result |= {"source": str(source), "out": str(destination), "tensors": tensors, "dropped": len(dropped)}
    common.emit(
        result,
        as_json,
        f"{destination}: {result['architecture']} for {result['task']}, {tensors} tensors, "
        f"{_parts(dropped)}, temperature {result['temperature']}",
    )


def _parts(dropped: tuple[str, ...]) -> str:
    """How many were left out, and of what: `31 dropped (text_decoder, temp)`."""
    parts = dict.fromkeys(name.partition(".")[0] for name in dropped)
    return f"{len(dropped)} dropped" + (f" ({', '.join(parts)})" if parts else "")
