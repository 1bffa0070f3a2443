"""Answers about collections in one process: every form and task, what is wrong, and jobs that were stopped."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from collection.conftest import BROKEN, answers, errors, png, write_shards
from madtp.collection.inputs import find_inputs
from madtp.collection.job import PARTS, Job, make_plan
from madtp.collection.run import run
from madtp.data.images import ImageFile
from madtp.data.sample import CaptionSample, Question, VqaSample
from madtp.errors import InputError
from madtp.evaluate import evaluating
from madtp.model.load import load
from small import contents, nano_task

Jobs = Callable[..., Job]
PICTURES = 13


class Stop(Exception):
    """Stands for the power cut."""


def parts(out: Path) -> list[str]:
    return sorted(file.relative_to(out / PARTS).as_posix() for file in (out / PARTS).rglob("*.parquet"))


def loose(folder: Path, count: int) -> Path:
    (folder / "below").mkdir(parents=True)
    for k in range(count):
        (folder / ("below" if k % 2 else ".") / f"{k:02d}.png").write_bytes(png(k))
    return folder


def test_captions_of_a_folder_are_those_of_one_picture_at_a_time(job: Jobs, tmp_path: Path) -> None:
    data = loose(tmp_path / "data", PICTURES)
    (data / "broken.jpg").write_bytes(b"no picture")
    mine = job("caption", "caption", beams=1)
    done = run(mine, str(data))
    assert (done["rows"], done["errors"], done["parts"], done["inputs"]) == (PICTURES, 1, 3, 3)
    task, model = nano_task("caption", beams=1), load(mine.model).eval()
    for row in answers(mine.out):
        sample = CaptionSample(row["id"], ImageFile(data / row["id"]), ())
        batch = task.collate([(task.pixels(sample.image)[None], sample, [])])
        with evaluating(model):
            assert task.predict(model, batch)[0][0].answer == row["caption"]
    assert errors(mine.out) == {"broken.jpg": "is not an image; give a PNG, a JPEG or the like"}


@pytest.mark.parametrize("kind", ["retrieval", "clip"])
def test_features_and_the_best_of_a_list(kind: str, job: Jobs, tmp_path: Path) -> None:
    data = loose(tmp_path / "data", 7)
    mine = job(kind, "embed")
    run(mine, str(data))
    task, model, rows = nano_task(kind), load(mine.model).eval(), answers(mine.out)
    found = torch.tensor([row["embedding"] for row in rows])
    with evaluating(model):
        wanted = torch.cat([model.see(task.pixels(ImageFile(data / row["id"]))[None]).feature for row in rows])
        assert torch.allclose(found, wanted, atol=1e-5)
        texts = ("a red circle", "two squares", "nothing")
        read = torch.cat([model.read(*task.tokens([text])).feature for text in texts])
    other = job(kind, "rank", choices=texts, out=tmp_path / "ranked")
    run(other, str(data))
    ranked, scores = answers(other.out), wanted @ read.T
    assert [row["answer"] for row in ranked] == [texts[i] for i in scores.argmax(1).tolist()]
    assert torch.allclose(torch.tensor([row["similarity"] for row in ranked]), scores.amax(1), atol=1e-5)


def test_questions_of_tars_by_both_ways(job: Jobs, tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", 2, 7, questions=True)
    free, closed = job("vqa", "vqa"), job("vqa", "rank", choices=("yes", "no", "3"), out=tmp_path / "closed")
    for mine in (free, closed):
        done = run(mine, str(data))
        rows = answers(mine.out)
        # pictures 0, 2, 4, 6 have one question, 5 has two; 1 has none and 3 is broken
        assert [row["id"] for row in rows[:6]] == [f"00000/000{k}" for k in ("0", "2", "4", "5#0", "5#1", "6")]
        assert rows[3]["image"] == rows[4]["image"] == "00000/0005" and rows[4]["question"] == "is there a square?"
        assert done["errors"] == 4 and set(errors(mine.out)) == {f"0000{k}/000{i}" for k in (0, 1) for i in (1, BROKEN)}
        assert "has no question" in errors(mine.out)["00000/0001"]
    assert {row["answer"] for row in answers(closed.out)} <= {"yes", "no", "3"}
    model, task = load(free.model).eval(), nano_task("vqa")
    (tmp_path / "one.png").write_bytes(png(5))
    sample = VqaSample("x", ImageFile(tmp_path / "one.png"), (Question("is there a square?", (), (), "0"),))
    batch = task.collate([(task.pixels(sample.image)[None], sample, list(sample.questions))])
    with evaluating(model):
        assert task.predict(model, batch)[0][0].answer == answers(free.out)[4]["answer"]


def test_one_question_for_all(job: Jobs, tmp_path: Path) -> None:
    mine = job("vqa", "vqa", text="how many circles are there?")
    run(mine, str(loose(tmp_path / "data", 3)))
    assert {row["question"] for row in answers(mine.out)} == {"how many circles are there?"}


@pytest.mark.parametrize("groups", [1000, 3])
def test_parquet(groups: int, job: Jobs, tmp_path: Path) -> None:
    """Bytes, as the library datasets stores them, or paths; ids of its own or by place; row groups of any size."""
    table = {
        "image": [{"bytes": png(k), "path": None} for k in range(PICTURES)],
        "id": [f"p{k}" for k in range(PICTURES)],
    }
    table["image"][2] = {"bytes": None, "path": None}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(table), tmp_path / "data" / "a.parquet", row_group_size=groups)
    pq.write_table(pa.table({"image_path": ["x.png", "none.png"]}), tmp_path / "data" / "b.parquet")
    (tmp_path / "data" / "x.png").write_bytes(png(5))
    mine = job("caption", "caption", beams=1)
    assert run(mine, str(tmp_path / "data"))["rows"] == PICTURES
    said = {row["id"]: row["caption"] for row in answers(mine.out)}
    assert said["b/0"] == said["p5"] and "p2" not in said
    assert errors(mine.out) == {"p2": "no picture is there", "b/1": "cannot be read: No such file or directory"}
    (mine.out / PARTS / "a-00001-of-00003.parquet").unlink()
    before = said
    assert run(mine, str(tmp_path / "data"))["parts"] == 1
    assert {row["id"]: row["caption"] for row in answers(mine.out)} == before


def test_a_stopped_job_does_what_is_missing_and_nothing_twice(job: Jobs, tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", 3, PICTURES)
    whole = job("caption", "caption", beams=1)
    shares: list[tuple[float, int]] = []
    assert run(whole, str(data), done=lambda part: shares.append((part["share"], part["inputs"])))["parts"] == 9
    assert {inputs for _, inputs in shares} == {3} and sum(share for share, _ in shares) == pytest.approx(3)
    broken = replace(whole, out=tmp_path / "broken")
    stop: dict[str, Any] = {"left": 4}

    def done(_: object) -> None:
        stop["left"] -= 1
        if not stop["left"]:
            raise Stop

    with pytest.raises(Stop):
        run(broken, str(data), done=done)
    assert len(parts(broken.out)) == 4 and not (broken.out / "errors.parquet").exists()
    (broken.out / PARTS / ".00001-00001-of-00003.parquet.abcd.part").write_bytes(b"cut short")
    before = {name: (broken.out / PARTS / name).stat().st_mtime_ns for name in parts(broken.out)}
    again = run(broken, str(data))
    assert (again["parts_before"], again["parts"], again["rows"]) == (4, 5, 3 * (PICTURES - 1) - (PICTURES - 1) - 4)
    assert all((broken.out / PARTS / name).stat().st_mtime_ns == at for name, at in before.items())
    assert answers(broken.out) == answers(whole.out) and errors(broken.out) == errors(whole.out)
    assert not list(broken.out.rglob("*.part"))
    kept = contents(broken.out)
    assert make_plan(broken, find_inputs(str(data), broken.part_size)).inputs == (), "nothing is read again"
    assert run(broken, str(data))["parts"] == 0
    assert contents(broken.out) == kept


def test_an_input_that_cannot_be_read_is_tried_again(job: Jobs, tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", 2, 4)
    whole = (data / "00001.tar").read_bytes()
    (data / "00001.tar").write_bytes(whole[:700])
    mine = job("caption", "caption", beams=1)
    done = run(mine, str(data))
    assert (done["parts"], done["errors"]) == (1, 2) and "not a whole tar" in errors(mine.out)["00001"]
    (data / "00001.tar").write_bytes(whole)
    (data / "00002.tar").write_bytes(whole)  # what a collection gains is done
    done = run(mine, str(data))
    assert (done["parts_before"], done["parts"]) == (1, 2)
    assert {row["id"].split("/")[0] for row in answers(mine.out)} == {"00000", "00001", "00002"}
    assert set(errors(mine.out)) == {f"0000{k}/0003" for k in range(3)}
    (data / "00001.tar").write_bytes(whole + bytes(512))
    with pytest.raises(InputError, match="inputs that have changed since the job began: 1, 00001 first"):
        run(mine, str(data))


def test_another_job_is_refused(job: Jobs, tmp_path: Path) -> None:
    data = loose(tmp_path / "data", 3)
    mine = job("caption", "caption", beams=1)
    run(mine, str(data))
    kept = contents(mine.out)
    with pytest.raises(InputError, match="is of a job with other settings: beams 1 -> 2; go on with the same"):
        run(replace(mine, beams=2), str(data))
    assert run(replace(mine, batch_size=1), str(data))["parts"] == 0, "the size of a batch changes no answer"
    (data / "more.png").write_bytes(png(1))
    with pytest.raises(InputError, match="inputs that have changed"):
        run(mine, str(data))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(InputError, match="holds something else"):
        run(replace(mine, out=tmp_path / "other"), str(data))
    assert contents(mine.out) == kept


def test_nothing_is_sorted(job: Jobs, tmp_path: Path) -> None:
    """Rows lie in the order of the tar, which is no order of names or sizes, whatever the batches."""
    names = ["q", "b", "x", "a", "m", "c", "z"]
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "0.tar", "w") as tar:
        for k, name in enumerate(names):
            file = tmp_path / f"{name}.png"
            file.write_bytes(png(k))
            tar.add(file, file.name)
    mine = job("caption", "caption", beams=1)
    run(mine, str(tmp_path / "data"))
    read = [pq.read_table(mine.out / PARTS / part).column("id").to_pylist() for part in parts(mine.out)]
    assert read == [[f"0/{name}" for name in some] for some in (names[:5], names[5:])]


def test_what_a_collection_is(tmp_path: Path) -> None:
    for place in ("train", "val"):
        write_shards(tmp_path / "data" / place, 2, 1)
    found = [(one.name, one.kind) for one in find_inputs(str(tmp_path / "data"), 5)]
    assert found == [(f"{place}/0000{k}", "tar") for place in ("train", "val") for k in (0, 1)]
    some = find_inputs(f"{tmp_path}/data/train/{{00000..00001}}.tar", 5)
    assert [one.name for one in some] == ["00000", "00001"]
    shutil.copy(tmp_path / "data" / "val" / "00000.tar", tmp_path / "one.tar")
    assert [one.name for one in find_inputs(str(tmp_path / "one.tar"), 5)] == ["one"]
    (tmp_path / "empty").mkdir()
    for wrong, words in (
        ("empty", "holds no tars, parquet files or pictures"),
        ("none", "no such folder or file"),
        ("none-{0..1}.tar", "no such tar: none-0.tar"),
        ("*.tgz.tar", "fits no file"),
    ):
        with pytest.raises(InputError, match=words):
            find_inputs(str(tmp_path / wrong), 5)
