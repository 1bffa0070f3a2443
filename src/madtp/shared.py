"""What rows of a comparison and trials of a search have in common: training, and settings that every call must have."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from madtp import checkpoints
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.files import write_json
from madtp.stop import Stopped

if TYPE_CHECKING:
    from madtp.evaluate import Evaluation
    from madtp.train import Trainer

SETTINGS = "settings.json"


def check_settings(out: Path, settings: dict[str, Any], what: str = "a comparison") -> None:
    """Begin a comparison in `out`, or go on with the one that is there.

    Args:
        out: its folder.
        settings: that all its rows share.
        what: it is called.

    Raises:
        InputError: `out` holds one with other settings, or something else.
    """
    path = out / SETTINGS
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"holds something else than {what}", out, "choose another --out")
        write_json(path, settings)
        return
    theirs = read_json(path)
    other = sorted(key for key in {*settings, *theirs} if settings.get(key) != theirs.get(key))
    if other:
        said = ", ".join(f"{key} {theirs.get(key)!r} -> {settings.get(key)!r}" for key in other)
        raise InputError(f"settings differ from those of the rows that are there: {said}", out, "choose another --out")


def read_json(path: Path) -> dict[str, Any]:
    """An object that was written here. Raises InputError for a file that is damaged."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", path, "remove it, or choose another --out") from error
    if not isinstance(told, dict):
        raise InputError("is no JSON object", path, "remove it, or choose another --out")
    return told


def content_of(parts: Iterable[Data[Any]]) -> str:
    """Short digest of the samples' names and texts, and of what is true of them; pictures are not opened."""
    digest = sha256()
    for part in parts:
        digest.update(repr((part.split, part.answers)).encode("utf-8", "surrogatepass"))
        for sample in part:
            digest.update(repr((sample.image_id, sample.texts)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def model_of(model: Any, processor: Any) -> str:
    """Short digest of a model's values and of what decides how it is trained, and of its processor."""
    digest = sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    words = sorted(processor.tokenizer.get_vocab().items())
    about = model.pruning.of_training(), processor.image_processor.to_dict(), words
    digest.update(repr(about).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def check_blocks(model: Any, firsts: Iterable[int]) -> None:
    """Raises InputError if the model has no block of such a number."""
    before = model.pruning
    for first in firsts:
        model.pruning = replace(before, first_block=first)
    model.pruning = before


def begun(folder: Path) -> bool:
    """Whether a row's training goes on in its folder; one cut short before its first checkpoint begins anew."""
    if checkpoints.is_there(folder):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return False


def trained(run: "Trainer", resume: bool, listen: bool) -> "Evaluation":
    """Train a row to its end.

    Args:
        run: its training.
        resume: from its checkpoint.
        listen: signals let it write its checkpoint first.

    Raises:
        InputError: as the trainer.
        Stopped: by a signal.
    """
    if not listen:
        return run.run(resume)
    try:
        with run.stop.listening():
            return run.run(resume)
    except Stopped as stopped:
        raise Stopped(stopped.signal_name, "the same command goes on from the last checkpoint") from None
