"""Every verb that measures writes a report with the hardest examples and how it went."""

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.test_bench import nano  # noqa: F401
from cli.test_verbs import object_of
from madtp.cli.examples import chosen, hardest
from madtp.evaluate import evaluate
from madtp.task.base import Prediction, Scored
from small import nano as nano_of
from small import nano_task, samples


def test_the_hardest_by_hand() -> None:
    task, data = nano_task("vqa"), samples("vqa", "test", 5)
    result = evaluate(nano_of("vqa", temperature=3.0), task, data)

    class Marked:
        """Two evaluations that differ in the marks."""

        def __init__(self, right: set[int]) -> None:
            said = enumerate(result.predictions)
            self.predictions: list[Prediction] = [
                Prediction(p.id, p.text, p.truth.answers[0] if i in right else "?", p.truth, p.image_id, p.objects)
                for i, p in said
            ]
            self.scored = Scored(self.predictions)

    every = set(range(10))
    # of sample 0 text 1 is wrong in both, of 2 text 0 in one, of 4 both texts in one
    found = hardest(task, data, [Marked(every - {1}), Marked(every - {1, 4, 8, 9})])
    assert found == [(0, 1), (2, 0), (4, 0)]
    assert hardest(task, data, [Marked(every)]) == []
    assert hardest(task, data, [Marked(set())], 2) == [(0, 0), (1, 0)]
    assert all(text == 0 for _, text in chosen(data))


def test_training_and_compressing_write_reports(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("compress", "--model", model, "--data", data, "--reduction", 0.45, "--epochs", 2, "--batch-size", 5)
    result = object_of(madtp(*command, "--out", tmp_path / "half", "--json"))
    report = json.loads((tmp_path / "half" / "report.json").read_text())
    dense, pruned = report["rows"]
    assert (dense["name"], pruned["name"]) == ("dense", "0.45")
    assert dense["temperature"] is None and dense["gflops"]["reduction"] == 0
    assert pruned["gflops"] == result["gflops"] and pruned["temperature"] == result["temperature"]
    assert pruned["ms_per_image"] > 0 and dense["speedup"] == 1.0
    assert report["split"] == "val" and report["log"][0]["step"] == 1
    page = (tmp_path / "half" / "report.html").read_text()
    assert "Quality on validation" in page and "What survives" in page


@pytest.mark.slow
def test_a_method_of_smaller_pictures_has_a_report_too(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("compress", "--model", model, "--data", data, "--reduction", 0.45, "--epochs", 1, "--batch-size", 5)
    assert madtp(*command, "--method", "downsample", "--out", tmp_path / "d").code == 0
    assert "report.html" in {file.name for file in (tmp_path / "d").iterdir()}


@pytest.mark.usefixtures("nano")
def test_bench_writes_a_report_where_it_is_asked_for(madtp: Run, tmp_path: Path) -> None:
    command = ("bench", "--preset", "nano-vqa", "--pairs", 1, "--reduction", 0.45)
    command += ("--text-tokens", 7, "--out", tmp_path / "b", "--json")
    result = object_of(madtp(*command))
    assert json.loads((tmp_path / "b" / "report.json").read_text()) == result
    assert "Time of nano-vqa" in (tmp_path / "b" / "report.html").read_text()
    assert "holds another run" in madtp(*command).wrong()
