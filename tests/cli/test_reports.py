"""Every verb that measures writes a report: what each holds, and that it says what its JSON says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from cli.test_bench import nano  # noqa: F401
from cli.test_verbs import object_of
from madtp.cli.examples import chosen, hardest
from madtp.evaluate import evaluate
from madtp.report.table import amount, percent, points, times
from madtp.task.base import Prediction, Scored
from report.test_pages import checked
from report.test_report import Page
from small import nano as nano_of
from small import nano_task, samples

QUALITY = {"quality and GFLOPs", "quality and time", "spread", "complexity", "hardest"}
EVERY = {"headline", "tokens", "settings"} | QUALITY
# bench runs on noise: no answer is right, no picture is richer than another, and their spread is none of pictures.
ELEMENTS = {"evaluate": EVERY, "compress": EVERY, "compare": EVERY, "bench": EVERY - QUALITY}


def elements(page: Page, made: dict[str, Any]) -> set[str]:
    """What a page shows, by the names of `ELEMENTS`."""
    drawn = [label or "" for label in page.attributes("aria-label")]
    versions = ", ".join(f"{name}: {of}" for name, of in made["versions"].items())
    shown = {
        "headline": "card" in page.attributes("class"),
        "quality and GFLOPs": any(re.match(r"Quality against .*\d% at [\d.]+( GFLOPs)?", label) for label in drawn),
        "quality and time": any(re.match(r"Quality against .*(of dense's time|\(dense = 1\))", d) for d in drawn),
        "tokens": any(label.startswith("Mean tokens after each block") for label in drawn),
        "spread": "band: p5 to p95" in page.text,
        "complexity": "Do richer pictures keep more tokens?" in page.text,
        "hardest": "The hardest examples" in page.text,
        "settings": "How it was measured" in page.text and versions in page.text and "cpu: " in page.text,
    }
    return {name for name, there in shown.items() if there}


def page_of(folder: Path) -> Page:
    return checked((folder / "report.html").read_text(encoding="utf-8"))


def cells(row: dict[str, Any], dense: dict[str, Any] | None = None) -> str:
    """A row of the table of results as the page has it, from its numbers."""
    gflops, accuracy = row["gflops"], row["metrics"]["accuracy"]
    said = ["dense" if row["temperature"] is None else f"reduction {row['name']}", percent(accuracy)]
    if dense is not None:
        said.append("–" if row is dense else points(100 * (accuracy - dense["metrics"]["accuracy"])))
    said += [amount(gflops["mean"]), amount(gflops["p50"]), amount(gflops["p95"]), percent(gflops["reduction"])]
    return " ".join(
        [*said, percent(row["tokens"]["kept_fraction"]), amount(row["ms_per_image"]), times(row["speedup"])]
    )


def test_the_report_of_evaluate(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("evaluate", "--model", model, "--data", data, "--batch-size", 3)
    told = object_of(madtp(*command, "--out", tmp_path / "e", "--json"))
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    (row,) = report["rows"]
    assert {key: row[key] for key in told} == told and row["ms_per_image"] > 0 and row["speedup"] > 0
    page = page_of(tmp_path / "e")
    assert elements(page, report) == ELEMENTS["evaluate"]
    assert cells(row) in page.text and f"dense costs {row['gflops']['dense']:.3g} GFLOPs" in str(
        page.attributes("aria-label")
    )
    assert f"{100 * row['gflops']['reduction']:.0f}% fewer GFLOPs accuracy {percent(row['metrics']['accuracy'])}" in (
        page.text
    )
    object_of(madtp(*command, "--temperature", 0, "--out", tmp_path / "d", "--json"))
    dense = json.loads((tmp_path / "d" / "report.json").read_text())
    (row,) = dense["rows"]
    assert row["speedup"] == 1.0 and cells(row) in page_of(tmp_path / "d").text
    assert f"{amount(row['gflops']['mean'])} GFLOPs {amount(row['ms_per_image'])} ms an image" in (
        page_of(tmp_path / "d").text
    ), "a dense model has headline numbers too"


def test_the_report_of_compare(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    command = ("compare", "--model", model, "--data", data, "--out", tmp_path, "--reduction", "0.3,0.4", "--pairs", 1)
    command += ("--methods", "dense,random,madtp", "--batch-size", 3, "--tune", 2, "--limit", 3, "--json")
    result = object_of(madtp(*command))
    page = page_of(tmp_path)
    assert elements(page, result) == ELEMENTS["compare"]
    assert ("* saves less than was asked for" in page.text) == any(line["short"] for line in result["table"])
    dense = result["table"][0]
    for line in result["table"]:
        change = "–" if line is dense else points(100 * (line["quality"] - dense["quality"]))
        said = [line["method"], f"{line['reduction_asked']:g}", percent(line["quality"], 2), change]
        said += [
            amount(line["gflops"]),
            f"{percent(line['reduction'])}{'*' * line['short']}",
            percent(line["kept_fraction"]),
        ]
        assert " ".join([*said, amount(line["ms_per_image"]), times(line["speedup"]), "1"]) in page.text
    kept = [row for row in result["rows"] if row["reduction_asked"] == 0.4]
    for row in kept:  # its tokens are drawn, and its answers shown, as it was measured
        counts = ", ".join(f"{count:.0f}" for count in row["tokens"]["per_block"])
        assert any(f"{row['method']}: {counts}" in (label or "") for label in page.attributes("aria-label"))
    hardest = page.text.partition("The hardest examples")[2]
    assert "every method at a reduction of 0.4, without training" in hardest
    for method in ("dense", "random", "madtp"):
        shown = len(re.findall(rf"{method} : ", hardest))
        assert 1 <= shown <= 3, "one of a picture"
    assert "reduction 0.4 :" not in hardest
    (folder,) = (tmp_path / "runs").glob("random-untrained-0.4-*")
    (folder / "marks.json").unlink()  # a row of an earlier version
    object_of(madtp(*command))
    assert "random : " not in page_of(tmp_path).text.partition("The hardest examples")[2]
    object_of(madtp(*command, "--examples", 0))
    assert elements(page_of(tmp_path), result) == ELEMENTS["compare"] - {"hardest"}


def test_what_compare_shows_is_what_it_measured(madtp: Run, tmp_path: Path) -> None:
    """The models of rows that are there, made anew for the page, answer as they did."""
    from madtp.compare import Comparison, Job
    from madtp.recipe import TrainConfig
    from small import model_folder, scenes

    place = model_folder(tmp_path / "model")
    task = nano_task("vqa")
    arena = Comparison(
        str(place), task, scenes("train", 7), scenes("val", 2), scenes("test", 3), tmp_path / "out",
        TrainConfig(1, 3, 1, 3e-3), {}, semantic_tokens=7, pairs=1,
    )  # fmt: skip
    for job in (Job("madtp", 0.4, False, 1), Job("downsample", 0.4, False, 0), Job("tome", 0.4, True, 0)):
        row = arena.run(job)
        model = arena.model_of(job, row["temperature"])
        again = evaluate(model, task, arena.test)
        assert again.to_dict()["tokens"] == row["tokens"] and again.metrics == row["metrics"]
        found = arena.marks(job)
        assert found is not None and found[1] == task.marks(again.scored)
        assert found[0] == [(i, k) for i, sample in enumerate(arena.test) for k in range(len(sample.texts))]


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
    page = page_of(tmp_path / "half")
    assert "Quality on validation" in page.text and "What survives" in page.text
    assert elements(page, report) == ELEMENTS["compress"]
    for row in (dense, pruned):
        assert cells(row, dense) in page.text


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
    page = page_of(tmp_path / "b")
    assert "Time of nano-vqa" in page.text and elements(page, result) == ELEMENTS["bench"]
    (row,) = result["rows"]
    said = [amount(row["gflops"]["dense"]), amount(row["gflops"]["mean"]), percent(row["reduction"])]
    said += [amount(row["dense_ms"]), amount(row["pruned_ms"]), times(row["speedup"]), times(row["ideal"])]
    assert " ".join(["towers x1, 0.45", *said, percent(row["efficiency"], 0)]) in page.text
    counts = ", ".join(f"{count:.0f}" for count in row["tokens_per_block"])
    assert any(counts in (label or "") for label in page.attributes("aria-label"))
    assert "tokens of noise" in page.text
    assert "holds another run" in madtp(*command).wrong()
