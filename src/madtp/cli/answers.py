"""`madtp answers`: the closed list of answers for rank inference, from the answers of the training questions."""

from pathlib import Path
from typing import Annotated

import typer

from madtp.cli import common


def answers(
    data: common.DataOption,
    out: Annotated[Path, typer.Option("--out", help="File to write, e.g. answer_list.json.", show_default=False)],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="train (if none is given) or val; may be repeated.")
    ] = None,
    min_count: Annotated[int, typer.Option("--min-count", min=1, help="Answers of so many questions.")] = 9,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="So many answers, instead.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Write the list of answers that --inference rank chooses from, the most frequent first. Needs no pictures."""
    from madtp.data.answers import build_answers
    from madtp.data.load import open_data
    from madtp.errors import InputError
    from madtp.files import write_json

    if out.exists() and not overwrite:
        raise InputError("is there already", out, "choose another --out or add --overwrite")
    splits = list(dict.fromkeys(split or ["train"]))
    if "test" in splits:
        raise InputError("answers of the test split must not be known", "--split", "use train and val")
    with common.working(f"counting the answers of {data}"):
        parts = [open_data("vqa", data, name, check_images=False) for name in splits]
        found = build_answers(parts, min_count=min_count, top=top)
    write_json(out, list(found))
    result = {"task": "vqa", "data": data, "splits": splits, "out": str(out), "answers": len(found)}
    common.emit(result, as_json, f"{out}: {len(found)} answers of {sum(part.n_texts for part in parts)} questions")
