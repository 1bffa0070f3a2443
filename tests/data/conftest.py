"""Small data sets on disk, in the layouts that people have."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a data set."""
    folder = tmp_path / "toy"
    folder.mkdir()
    return folder


@pytest.fixture
def paint(root: Path) -> Callable[..., None]:
    """Make pictures below the folder, whatever their endings promise; the n-th has red = n."""

    def paint(*names: str) -> None:
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (5, 7), (number, 0, 0)).save(path, "PNG")

    return paint


@pytest.fixture
def write(root: Path) -> Write:
    """Write a file below the folder: text as it is, anything else as JSON."""

    def write(name: str, content: object) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write
