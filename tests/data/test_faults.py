"""Faulty data: each kind is refused by the entry it is in, or left out, counted and named; too many stop the run."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.conftest import Write
from madtp.data.faults import ERRORS, Faults
from madtp.data.load import load_data
from madtp.errors import InputError

GOOD = [{"image": f"{i}.png", "question": f"what is {i}?", "answer": "red"} for i in range(20)]
# name -> an entry that is wrong, and what is said of it
BAD: dict[str, tuple[Any, str]] = {
    "no question key": ({"image": "1.png", "answer": "red"}, "has no 'question'"),
    "no picture key": ({"question": "what?", "answer": "red"}, "has no 'image'"),
    "blank question": ({"image": "1.png", "question": "  ", "answer": "red"}, "'question' must be words"),
    "NaN for an answer": (
        {"image": "1.png", "question": "what?", "answer": math.nan},
        "'answer' must be words, not nan",
    ),
    "half a character": ({"image": "1.png", "question": "what \ud83d?", "answer": "red"}, "half a character"),
    "a text without end": ({"image": "1.png", "question": "word " * 50_000, "answer": "red"}, "more than 100000"),
    "no picture": ({"image": "none.png", "question": "what?", "answer": "red"}, "no such image"),
    "a way out of the folder": ({"image": "../1.png", "question": "what?", "answer": "red"}, "inside the folder"),
    "the id of another": (
        {"image": "1.png", "question": "what?", "answer": "red", "id": "twice"},
        "another text's too",
    ),
    "no object": (["1.png", "what?", "red"], "expected an object"),
    "no JSON": ('{"image": "1.png", ', "is not JSON"),
}


def lines(*entries: Any) -> str:
    return "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries)


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ERRORS).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", BAD)
def test_every_kind_stops_or_is_left_out(
    name: str, root: Path, write: Write, paint: Callable[..., None], tmp_path: Path
) -> None:
    entry, said = BAD[name]
    paint(*(f"{i}.png" for i in range(20)))
    write("test.jsonl", lines({**GOOD[0], "id": "twice"}, *GOOD[1:7], entry, *GOOD[7:]))
    with pytest.raises(
        InputError, match=r"ids that several" if "id of" in name else said.replace("(", r"\(") + "|missing"
    ):
        load_data("vqa", root, "test")
    faults = Faults("skip", 0.05)
    data = load_data("vqa", root, "test", faults=faults)
    assert [question.text for sample in data for question in sample.questions] == [entry["question"] for entry in GOOD]
    assert faults.counts() == {"test": 1}
    faults.attach(tmp_path)
    (line,) = told(tmp_path)
    assert (line["kind"], line["split"]) == ("entry", "test") and said in line["error"]
    with pytest.raises(InputError, match=r"1 of 21 entries of test are faulty.*more than --max-skipped 0\.04 allows"):
        load_data("vqa", root, "test", faults=Faults("skip", 0.04))


@pytest.mark.parametrize("text", ["🙂 🙃?", "מה זה?", "ما هذا؟", "word " * 10_000, "a\tb\n c", "e\u0301"])
def test_strange_texts_are_texts(text: str, root: Path, write: Write, paint: Callable[..., None]) -> None:
    paint("1.png")
    write("test.jsonl", lines({"image": "1.png", "question": text, "answer": "red"}))
    (sample,) = load_data("vqa", root, "test", faults=Faults("skip", 0.0))
    assert sample.questions[0].text == " ".join(text.split())


def test_a_file_that_is_none_stops_in_any_case(root: Path, write: Write, paint: Callable[..., None]) -> None:
    paint("1.png")
    write("vqa_train.json", "[{]")
    with pytest.raises(InputError, match="is not JSON"):
        load_data("vqa", root, "train", faults=Faults("skip", 1.0))


@pytest.mark.parametrize(
    ("task", "file", "good", "bad"),
    [
        ("caption", "coco_karpathy_train.json", {"image": "1.png", "caption": "a"}, {"image": "1.png", "caption": 1.5}),
        ("reasoning", "nlvr_train.json", {"images": ["1.png", "2.png"], "sentence": "a", "label": "True"},
         {"images": ["1.png", "2.png"], "sentence": "a", "label": math.nan}),
        ("vqa", "train/questions.json", ["what?", "red", 1], ["what?", "mauve", 1]),
        ("vqa", "train.csv", "1.png,what?,red", "1.png,what?"),
    ],
)  # fmt: skip
def test_other_forms_do_it_too(
    task: str, file: str, good: Any, bad: Any, root: Path, write: Write, paint: Callable[..., None]
) -> None:
    paint("1.png", "2.png", "train/images/1.png", "test/images/1.png")
    write("answers.txt", "red\n") if file.startswith("train/") else None
    if file.endswith("csv"):
        write(file, "\n".join(["image,question,answer", *[good] * 9, bad]))
        write("val.csv", "image,question,answer\n" + good)
    else:
        write(file, [*[good] * 9, bad])
    (root / "val").mkdir() if file.startswith("train/") else None
    with pytest.raises(InputError):
        load_data(task, root, "train")
    faults = Faults("skip", 0.1)
    data = load_data(task, root, "train", faults=faults)
    assert data.n_texts == 9
    assert faults.counts() == {"train": 1}


def test_the_same_fault_counts_once_and_a_resumed_run_knows_it(tmp_path: Path) -> None:
    faults = Faults("skip", 0.5)
    faults.attach(tmp_path)
    for _ in range(3):
        faults.note("train", "sample", "7", "is broken")
    faults.note("val", "sample", "7", "is broken")
    assert faults.counts() == {"train": 1, "val": 1} and len(told(tmp_path)) == 2
    with open(tmp_path / ERRORS, "a") as file:
        file.write('{"kind": "sample", "spl')  # killed here
    again = Faults("skip", 0.5)
    again.attach(tmp_path)
    again.note("train", "sample", "7", "is broken")
    again.note("train", "sample", "11", "is broken too")
    assert again.counts() == {"train": 2, "val": 1}
    whole = [line for line in (tmp_path / ERRORS).read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["id"] for line in whole] == ["7", "7", "11"]


@pytest.mark.parametrize(("policy", "most"), [("go on", 0.1), ("skip", 1.5), ("skip", -0.1), ("skip", math.nan)])
def test_wrong_settings(policy: str, most: float) -> None:
    with pytest.raises(InputError, match=r"--(on-error|max-skipped): "):
        Faults(policy, most)


def test_a_picture_too_long_for_memory_is_refused(tmp_path: Path) -> None:
    from madtp.data.images import ImageFile

    Image.new("RGB", (1, 201)).save(tmp_path / "a.png")
    Image.new("RGB", (200, 1)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="1 x 201 is more than 200 times as long as wide"):
        ImageFile(tmp_path / "a.png").open()
    assert ImageFile(tmp_path / "b.png").open().size == (200, 1)
