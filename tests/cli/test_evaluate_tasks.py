"""`evaluate` of more than questions: pictures of pairs in the report, predictions where they can be written."""

import re
from pathlib import Path

import pytest

from cli.conftest import Run
from madtp.data.scenes import write_scenes
from madtp.model.save import save_model
from small import nano, nano_task


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A model that judges statements."""
    save_model(nano("reasoning", temperature=3.0), nano_task("reasoning").processor, tmp_path / "model")
    return tmp_path / "model"


def test_a_report_shows_both_pictures_of_a_pair(madtp: Run, pairs: Path, tmp_path: Path) -> None:
    command = ("evaluate", "--model", pairs, "--data", "scenes:3", "--limit", 3, "--out", tmp_path / "report")
    assert madtp(*command, "--examples", 2).code == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("(left picture)</h3>") == page.count("(right picture)</h3>") == 4
    assert page.count("<article") == 8  # two pairs, and the two hardest


def test_a_place_that_takes_no_predictions_is_refused_before_the_work(
    madtp: Run, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("madtp.evaluate.evaluate", lambda *_, **__: pytest.fail("worked for nothing"))
    command = ("evaluate", "--model", pairs, "--data", "scenes:3", "--limit", 3, "--predictions", tmp_path)
    assert madtp(*command).wrong() == f"{tmp_path}: is a folder; name a file in it"


@pytest.mark.parametrize(("split", "fix"), [("test", "add --predictions, or use val"), ("val", "add --predictions")])
def test_a_split_without_truth_is_told_what_helps(
    madtp: Run, pairs: Path, tmp_path: Path, split: str, fix: str
) -> None:
    folder = write_scenes(tmp_path / "pairs", task="reasoning", seed=3, n_train=2, n_val=1, n_test=1)
    for file in folder.glob("*.json"):
        file.write_text(re.sub(r'"label": *"?\w+"?, *', "", file.read_text()))
    said = madtp("evaluate", "--model", pairs, "--data", folder, "--split", split).wrong()
    assert said == f"{folder}: what is true of {split} is not in its files; {fix}"
