"""How far work is: what is told adds up to what there was, in small steps, and to nobody where nobody watches."""

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from madtp import pace
from madtp.data.files import read_entries, read_lines
from madtp.data.load import load_stream, open_data
from madtp.model.checkpoint import read_checkpoint
from madtp.pace import growing, paced, tell, watched
from tars import write_scenes


class Seen:
    """A watch that adds up; `shares` are how far the work was at each sign."""

    def __init__(self) -> None:
        self.done, self.known, self.shares = 0.0, 0.0, [0.0]

    def __call__(self, done: float, more: float) -> None:
        self.done, self.known = self.done + done, self.known + more
        assert 0 <= self.done <= self.known
        if self.known:
            self.shares.append(self.done / self.known)


def test_items_are_told_of_as_they_go() -> None:
    with watched(seen := Seen()):
        taken = []
        for item in paced(range(2503), 2503):
            taken.append(item)
            assert seen.known == 2503
            assert seen.done <= len(taken)
    assert taken == list(range(2503))
    assert seen.done == 2503
    assert len(set(seen.shares)) == 4  # nothing, 1000, 2000, all


def test_nobody_watches() -> None:
    tell(3, 7)
    assert list(paced([2, 3, 5], 3)) == [2, 3, 5]


def test_the_innermost_watches() -> None:
    with watched(outer := Seen()):
        with watched(inner := Seen()):
            list(paced([2, 3, 5], 3))
        list(paced([2, 3], 2))
    assert (inner.done, outer.done) == (3, 2)


@pytest.mark.parametrize("read", [read_entries, read_lines])
def test_annotations(read: object, tmp_path: Path) -> None:
    entries = [{"n": n} for n in range(1009)]
    path = tmp_path / "entries"
    text = json.dumps(entries) if read is read_entries else "\n".join(map(json.dumps, entries))
    path.write_text(text, encoding="utf-8")
    with watched(seen := Seen()):
        assert len(read(path)) == 1009  # type: ignore[operator]
    assert seen.done == seen.known == 1009


def test_a_data_set(tmp_path: Path) -> None:
    questions = [{"image_id": n // 2, "question": "is it?", "question_id": n} for n in range(7)]
    answers = [{"question_id": n, "answers": [{"answer": "yes"}] * 10} for n in range(7)]
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "v2_mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": answers}))
    with watched(seen := Seen()):
        open_data("vqa", tmp_path, "train", check_images=False)
    assert seen.done == seen.known == 3 * 7  # questions, answers, and both put together


@pytest.mark.parametrize("named", [True, False])
def test_shards_that_are_counted(named: bool, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path, (3, 2, 7, 5), "caption")
    if named:
        write_scenes(folder, (2,), "caption", "val")
    else:  # names are looked at first, for what is held out
        for file in folder.iterdir():
            file.rename(file.with_name(f"shard-{file.name[-7:]}"))
    with watched(seen := Seen()):
        load_stream("caption", folder)
    assert seen.done == seen.known == (4 if named else 2 * 4)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_bytes_of_a_checkpoint(ending: str, tmp_path: Path) -> None:
    state = {f"tensor{n}": torch.randn(101, 103) for n in range(5)}
    path = tmp_path / f"checkpoint.{ending}"
    if ending == "pth":
        torch.save({"model": state}, path)
    else:
        save_file(state, path)
    with watched(seen := Seen()):
        read = read_checkpoint(path)
    assert all(torch.equal(read.state[name], state[name]) for name in state)
    assert seen.known == path.stat().st_size
    # a header, and what torch has no need of, are read by nobody
    assert seen.done > 0.9 * seen.known
    assert any(0.2 < share < 0.8 for share in seen.shares)  # and on the way


def wait_for(seen: Seen, done: float) -> None:
    """Until it has been looked at."""
    for _ in range(60_000):
        if seen.done >= done:
            break
        time.sleep(0.001)
    assert seen.done == done


def test_a_folder_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0.001)
    seen = Seen()
    with watched(seen), growing(tmp_path, 7000):
        (tmp_path / "part").write_bytes(b"0" * 5000)
        wait_for(seen, 5000)
        (tmp_path / "more").write_bytes(b"0" * 9000)  # more than was thought
        wait_for(seen, 7000)
    assert seen.done == seen.known == 7000


def test_a_folder_that_grows_after_a_failure(tmp_path: Path) -> None:
    seen = Seen()
    with watched(seen):
        tell(0, 5000)
        with pytest.raises(OSError, match="full"), growing(tmp_path, 7000, 5000):
            raise OSError("the disk is full")
    assert seen.done == seen.known == 7000
