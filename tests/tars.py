"""Tar shards for tests: of any members, and of generated pictures with their texts."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from small import samples


def png(red: int) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.new("RGB", (5, 7), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, object]) -> Path:
    """A tar of members: bytes and text as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("z") else "w") as tar:
        for member, content in members.items():
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            data = text.encode() if isinstance(text, str) else text
            header = tarfile.TarInfo(member)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def pair(key: str, red: int, **fields: object) -> dict[str, object]:
    """Members of a picture of that red with its caption, and one that is neither."""
    return {f"{key}.jpg": png(red), f"{key}.json": {"caption": f"no {red}", **fields}, f"{key}.cls": "7"}


@cache
def _scene(task: str, split: str, place: int) -> tuple[bytes, str]:
    sample = samples(task, split, 47)[place % 47]
    file = io.BytesIO()
    sample.image.open().save(file, "PNG")
    asked = [{"question": q.text, "answer": q.answers[0]} for q in sample.texts] if task == "vqa" else None
    return file.getvalue(), json.dumps({"questions": asked} if asked else {"captions": list(sample.texts)})


def write_scenes(folder: Path, sizes: Sequence[int], task: str, split: str = "train") -> Path:
    """Tars named after the split, of so many generated pictures each with two texts; each numbers them anew."""
    place = 0
    for k, size in enumerate(sizes):
        members: dict[str, object] = {}
        for i in range(size):
            members[f"{i:03d}.png"], members[f"{i:03d}.json"] = _scene(task, split, place)
            place += 1
        write_tar(folder / f"{split}-{k:03d}.tar", members)
    return folder
