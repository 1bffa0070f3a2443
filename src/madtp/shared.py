"""What all rows of a comparison, or trials of a search, have in common: settings, held against every later call."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.files import write_json

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


def weights_of(model: torch.nn.Module) -> str:
    """Short digest of a model's names and values."""
    digest = sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
