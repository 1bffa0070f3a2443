"""Submission files: read back as the servers read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from madtp.errors import InputError
from madtp.metric.submission import coco_image_id, write_captions, write_nlvr2, write_rankings, write_vqa


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="ascii"))


def test_vqa(tmp_path: Path) -> None:
    write_vqa(tmp_path / "a.json", [("262148000", "yes"), ("val-7", 'a "café"')])
    assert read(tmp_path / "a.json") == [
        {"question_id": 262148000, "answer": "yes"},
        {"question_id": "val-7", "answer": 'a "café"'},
    ]


def test_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions_val2014_ours_results.json"
    write_captions(path, [("42", "a cat"), ("0042", "a dog")])
    assert read(path) == [{"image_id": 42, "caption": "a cat"}, {"image_id": "0042", "caption": "a dog"}]
    write_captions(path, [])
    assert read(path) == []


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("val2014/COCO_val2014_000000000042.jpg", "42"),
        ("COCO_test2015_000000581929.jpg", "581929"),
        ("000000391895.jpg", "391895"),
        ("val2017/000000391895", "391895"),
        ("1000092795.jpg", "1000092795.jpg"),  # Flickr's
        ("42", "42"),
    ],
)
def test_coco_image_id(name: str, identifier: str) -> None:
    assert coco_image_id(name) == identifier


def test_nlvr2(tmp_path: Path) -> None:
    judged = [("dev-850-0-0", True), ("dev-850-0-1", False)]
    write_nlvr2(tmp_path / "a.csv", judged)
    predictions = {}  # as the official script reads them
    for line in (tmp_path / "a.csv").read_text().splitlines():
        identifier, prediction = line.strip().split(",")
        predictions[identifier] = prediction
    assert predictions == {"dev-850-0-0": "True", "dev-850-0-1": "False"}


def test_rankings(tmp_path: Path) -> None:
    write_rankings(tmp_path / "a.json", {"i": ["t", "u"]}, {"t": ("i",), "u": ("i",)})
    assert read(tmp_path / "a.json") == {"image_to_text": {"i": ["t", "u"]}, "text_to_image": {"t": ["i"], "u": ["i"]}}


def test_what_no_server_takes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for write, rows in (
        (write_vqa, [("1", "a")] * 2),
        (write_captions, [("1", "a")] * 2),
        (write_nlvr2, [("1", True)] * 2),
    ):
        with pytest.raises(InputError, match="two predictions for '1'"):
            write(path, rows)  # type: ignore[operator]
    for identifier in ("a,b", "a\nb", ""):
        with pytest.raises(InputError, match="no comma"):
            write_nlvr2(path, [(identifier, True)])
    assert not path.exists()
