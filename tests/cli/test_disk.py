"""A disk that is full, a folder that cannot be written, by every verb: one line, exit code 2, nothing in half.

Two kinds of full: no file may grow past a size, which anybody can set; and a tiny file system, where one may mount it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cli.conftest import Run
from small import contents, samples, small_disk

QUICK = ("--epochs", 1, "--questions", 1, "--limit", 3, "--batch-size", 2)
# what each verb writes into OUT; MODEL is pruned, DATA in easy-VQA's form
VERBS: dict[str, tuple[Any, ...]] = {
    "train": ("--model", "MODEL", "--data", "DATA", "--out", "OUT", "--save-every", 1, *QUICK),
    "compress": ("--model", "MODEL", "--data", "DATA", "--reduction", 0.4, "--out", "OUT", "--save-every", 1, *QUICK),
    "calibrate": ("--model", "MODEL", "--data", "DATA", "--reduction", 0.45, "--out", "OUT"),
    "evaluate": ("--model", "MODEL", "--data", "DATA", "--out", "OUT"),
    "evaluate --predictions": ("--model", "MODEL", "--data", "DATA", "--predictions", "OUT/answers.json"),
    "compare": ("--model", "MODEL", "--data", "DATA", "--out", "OUT", "--methods", "dense", "--limit", 3, "--pairs", 1),
    "view": ("--model", "MODEL", "--image", "IMAGE", "--text", "is there a circle?", "--out", "OUT"),
    "view --worst": ("--model", "MODEL", "--data", "DATA", "--worst", 1, "--out", "OUT"),
    "convert": ("MODEL", "OUT/dense", "--to", "hf-dense"),
    "answers": ("--data", "DATA", "--min-count", 1, "--out", "OUT/answers.json"),
    "predict": ("--model", "MODEL", "--data", "PICTURES", "--text", "is there a circle?", "--out", "OUT"),
    "bench": ("--model", "MODEL", "--pairs", 1, "--batch-size", 1, "--out", "OUT"),
}


@pytest.fixture
def words(model: Path, data: Path, tmp_path: Path) -> dict[str, Path]:
    samples("vqa", "test", 1)[0].image.open().save(tmp_path / "a.png")
    return {"MODEL": model, "DATA": data, "IMAGE": tmp_path / "a.png", "PICTURES": data / "test" / "images"}


def command(verb: str, words: dict[str, Path], out: Path) -> list[Any]:
    known = {**words, "OUT": out, "OUT/dense": out / "dense", "OUT/answers.json": out / "answers.json"}
    return [verb.split()[0], *(known.get(word, word) for word in VERBS[verb])]


def assert_whole(out: Path) -> None:
    """No file that is read back later is left in half, and none under a hidden name."""
    for name, content in contents(out).items() if out.is_dir() else ():
        assert not any(part.startswith(".") for part in Path(name).parts), name
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".jsonl"):  # but for a last line, which readers pass over
            assert all(json.loads(line) for line in content.split(b"\n")[:-1])
        elif name.endswith(".parquet"):
            pq.read_table(out / name)
        else:
            assert name.endswith((".html", ".svg", ".png", ".csv")) and content, name


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory, where this user may mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    how = [str(mount), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if mount is None or subprocess.run(how, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount no file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "verb",
    [
        *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("compress", "view", "view --worst", "bench")),
        *("compare", "convert", "predict"),
    ],
)
def test_no_file_can_grow(verb: str, madtp: Run, words: dict[str, Path], tmp_path: Path) -> None:
    """Past what is printed here. Three others: test_wrong_input.py; the last two write too little for it."""
    out = tmp_path / "out"
    with small_disk(1000):
        ended = madtp(*command(verb, words, out))
    line = ended.wrong()
    assert line.startswith(str(out)) and "cannot write" in line, line
    assert_whole(out)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 4096])  # bytes: a page is enough for a lock, a setting, a line
@pytest.mark.parametrize("verb", VERBS)
def test_no_room_is_left(verb: str, left: int, madtp: Run, words: dict[str, Path], tmp_path: Path) -> None:
    if left and verb in ("answers", "evaluate --predictions"):
        pytest.skip("it is enough for these")
    out = tmp_path / "disk" / "out"
    with mounted(out.parent, "size=64k"):
        (out.parent / "others").write_bytes(b"x" * (64 * 1024 - left))
        line = madtp(*command(verb, words, out)).wrong()
        assert line.startswith(str(out)) and "cannot write" in line, line
        assert "No space left on device" in line or "the disk is full" in line, line
        assert_whole(out)


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_cannot_be_written(verb: str, madtp: Run, words: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    out = folder / "out"
    if os.geteuid():
        folder.mkdir(mode=0o555)
        line = madtp(*command(verb, words, out)).wrong()
    else:  # who may write anywhere, but not there
        with mounted(folder, "ro"):
            line = madtp(*command(verb, words, out)).wrong()
    assert line.startswith(str(out)) and ("cannot write" in line or "cannot be made" in line), line
