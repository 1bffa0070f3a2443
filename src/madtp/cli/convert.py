"""`madtp convert`: checkpoints of the original BLIP and of the public MADTP code to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from madtp.cli import common


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint: .pth or .safetensors.", show_default=False)],
    destination: Annotated[Path, typer.Argument(help="Model folder to write.", show_default=False)],
    task: common.TaskOption = "vqa",
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Attention heads, if not width / 64.", show_default=False)
    ] = None,
    start_token: Annotated[
        int | None, typer.Option("--start-token", min=0, help="Id that begins an answer ([DEC]).", show_default=False)
    ] = None,
    end_token: Annotated[
        int | None, typer.Option("--end-token", min=0, help="Id that ends an answer ([SEP]).", show_default=False)
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="Tokenizer to save beside, e.g. bert-base-uncased.", show_default=False),
    ] = None,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Convert SOURCE to a model folder; every tensor is accounted for, or the checkpoint is refused."""
    from madtp.model.convert import convert_vqa

    common.check_task(task)
    info = convert_vqa(
        source,
        destination,
        heads=heads,
        start_token_id=start_token,
        end_token_id=end_token,
        tokenizer=tokenizer,
        overwrite=overwrite,
    )
    result = {"task": task, "source": str(source), "out": str(destination), "temperature": info.temperature}
    result |= {"tensors": info.tensors, "dropped": len(info.dropped)}
    common.emit(
        result,
        as_json,
        f"{destination}: {info.tensors} tensors, {len(info.dropped)} dropped, temperature {info.temperature}",
    )
