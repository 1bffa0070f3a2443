"""Small collections of generated pictures in every form, and jobs about them."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from madtp.collection.job import PARTS, Job
from madtp.model.save import save_model
from small import nano, nano_processor, samples

BROKEN = 3  # place of the picture in a shard that is cut short


def png(place: int) -> bytes:
    """A generated picture as a file."""
    file = io.BytesIO()
    samples("caption", "val", 23)[place % 23].image.open().save(file, "PNG")
    return file.getvalue()


def write_shards(folder: Path, tars: int, pictures: int, questions: bool = False) -> Path:
    """Tars of so many pictures, one of each broken; every tar numbers its pictures anew."""
    folder.mkdir(parents=True)
    for k in range(tars):
        with tarfile.open(folder / f"{k:05d}.tar", "w") as tar:
            for i in range(pictures):
                data = png(7 * k + i)
                members = {f"{i:04d}.png": data[:50] if i == BROKEN else data}
                if questions and i != 1:
                    asked = [{"question": "how many circles are there?"}, {"question": "is there a square?"}]
                    members[f"{i:04d}.json"] = json.dumps({"questions": asked[: 1 + i % 2]}).encode()
                for name, content in members.items():
                    header = tarfile.TarInfo(name)
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))
    return folder


def answers(out: Path) -> list[dict[str, Any]]:
    """All rows of all parts, by id; the ids are told apart."""
    rows = sorted(ds.dataset(out / PARTS, format="parquet").to_table().to_pylist(), key=lambda row: row["id"])
    assert len({row["id"] for row in rows}) == len(rows), "an id comes twice"
    return rows


def errors(out: Path) -> dict[str, str]:
    """Reason by id."""
    return {row["id"]: row["reason"] for row in pq.read_table(out / "errors.parquet").to_pylist()}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a nano model of a kind, pruned; made when first asked for."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("model") / kind
            save_model(nano(kind, temperature=3.0), nano_processor(kind), made[kind])
        return made[kind]

    return folder


@pytest.fixture
def job(folders: Callable[[str], Path], tmp_path: Path) -> Callable[..., Job]:
    def make(kind: str, task: str, **options: Any) -> Job:
        options = {"batch_size": 3, "part_size": 5, "out": tmp_path / "out", "threads": 1} | options
        return Job(str(folders(kind)), task, kind=kind, **options)

    return make
