"""`predict --data` (docs/scale.md): what it prints, and what it refuses before anything is made."""

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from cli.conftest import Run
from madtp.model.load import load


@pytest.fixture
def pictures(data: Path) -> Path:
    return data / "test" / "images"


def test_a_collection_is_answered_once(madtp: Run, model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("predict", "--model", model, "--data", pictures, "--text", "is there a circle?", "--out", out)
    ended = madtp(*command, "--part-size", 2, "--json")
    assert ended.code == 0, ended
    told = json.loads(ended.out)
    assert told.pop("seconds") > 0
    assert told == {
        "task": "vqa", "model": str(model), "data": str(pictures), "out": str(out), "engine": "local",
        "inputs": 2, "parts_before": 0, "parts": 2, "rows": 3, "errors": 0,
    }  # fmt: skip
    rows = ds.dataset(out / "parts", format="parquet").to_table().to_pylist()
    assert {row["question"] for row in rows} == {"is there a circle?"} and len({row["id"] for row in rows}) == 3
    again = madtp(*command, "--part-size", 2)
    assert again.code == 0 and "0 answers in 0 parts, 2 parts were there" in " ".join(again.out.split())


def test_a_collection_at_a_budget(madtp: Run, model: Path, data: Path, pictures: Path, tmp_path: Path) -> None:
    """The curve's temperature is that of the job: what a second run is held to, and every model of it is set to."""
    curve = tmp_path / "curve"
    made = madtp("calibrate", "--model", model, "--data", data, "--reduction", "0.43,0.49", "--out", curve)
    assert made.code == 0, made
    jobs = {}
    for budget in (0.46, 0):
        out = tmp_path / f"out-{budget}"
        asked = ("--text", "is there a circle?", "--reduction", budget, "--out", out)
        ended = madtp("predict", "--model", curve, "--data", pictures, *asked)
        assert ended.code == 0, ended
        jobs[budget] = json.loads((out / "job.json").read_text())["settings"]["temperature"]
    network = load(curve)
    network.set_reduction(0.46)
    assert jobs == {0.46: network.temperature, 0: 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "OUT", "--image", "x.png"), "predict: give one of --image and --data"),
        ((), "--out: is missing"),
        (("--out", "OUT", "--task", "caption"), "is a model for vqa; caption takes one for caption"),
        (
            ("--out", "OUT", "--task", "reasoning"),
            "--task: 'reasoning' is nothing for a collection; use one of",
        ),
        (("--out", "OUT", "--task", "rank"), "--choices: is missing; name a file"),
        (("--out", "OUT", "--choices", "x"), "--choices: is nothing for vqa"),
        (("--out", "OUT", "--text", " "), "--text: is no text"),
        (("--out", "OUT"), "a folder of pictures holds no questions; give --text"),
        (("--out", "OUT", "--actors", 2), "--actors: goes with --engine ray"),
        (("--out", "OUT", "--engine", "spark"), "--engine: unknown engine 'spark'; use local or ray"),
        (("--out", "OUT", "--reduction", 0.5), "reduction: no curve is stored with this model"),
        (("--out", "OUT", "--reduction", 0, "--temperature", 0), "--reduction: goes without --temperature"),
        (("--out", "OUT", "--prompt", "a"), "--prompt is nothing for vqa"),
    ],
)
def test_what_is_refused(
    options: tuple[object, ...], words: str, madtp: Run, model: Path, pictures: Path, tmp_path: Path
) -> None:
    given = [tmp_path / "out" if option == "OUT" else option for option in options]
    assert words in madtp("predict", "--model", model, "--data", pictures, *given).wrong()
    assert not (tmp_path / "out").exists()


def test_a_collection_of_which_nothing_can_be_used(madtp: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no picture")
    command = ("predict", "--model", model, "--data", tmp_path / "data", "--text", "what?", "--out", tmp_path / "out")
    ended = madtp(*command, "--json")
    assert ended.code == 2 and json.loads(ended.out)["errors"] == 1
    assert f"none of it could be used; {tmp_path / 'out' / 'errors.parquet'} says why" in ended.err


def test_neither_picture_nor_collection(madtp: Run, model: Path) -> None:
    assert madtp("predict", "--model", model).wrong() == "predict: give --image, or --data for a collection"
