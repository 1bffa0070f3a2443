"""`madtp compare`, in small: every method meets the budget, and nothing that is done is done again."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from cli.test_verbs import object_of
from madtp import train
from madtp.files import locked
from madtp.model.save import save_model
from small import SEED, contents, model_folder, nano, nano_model, nano_processor, processor

SMALL = ("--limit", 6, "--batch-size", 3, "--texts", 1, "--pairs", 1)
METHODS = "dense,downsample,upop,random,class_attention,tome,madtp"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "dense")


def rows_of(out: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in (out / "runs").glob("*/row.json")}


def test_untrained_methods_meet_the_budget(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("compare", "--model", dense, "--data", data, "--out", out, "--reduction", "0.4", *SMALL)
    result = object_of(madtp(*command, "--methods", METHODS, "--semantic-tokens", 7, "--seeds", 2, "--json"))
    assert result["schema"] == 1 and result["task"] == "vqa" and result["split"] == "test" and result["n"] > 0
    assert {"hardware", "versions", "commit", "threads", "pairs", "epochs"} <= result.keys()
    assert json.loads((out / "compare.json").read_text()) == result
    lines = {line["method"]: line for line in result["table"]}
    assert list(lines) == ["dense", "madtp", "class_attention", "random", "tome", "downsample", "upop"]
    assert [line["seeds"] for line in lines.values()] == [1, 2, 1, 1, 1, 1, 1], "fresh tokens are all that is drawn"
    assert lines["dense"]["reduction"] == 0 and lines["dense"]["reduction_asked"] == 0
    for name, line in lines.items():
        assert line["trained"] is False and line["train_seconds"] is None and line["failed"] is None
        assert 0 <= line["quality"] <= 1 and line["ms_per_image"] > 0
        if name != "dense":  # smaller pictures have but so many sizes; val is two pictures
            assert line["reduction"] == pytest.approx(0.4, abs=0.12), name
    two = [row for row in result["rows"] if row["method"] == "madtp"]
    assert two[0]["temperature"] != two[1]["temperature"]
    with open(out / "compare.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["method"], float(row["gflops"])) for row in table] == [(m, x["gflops"]) for m, x in lines.items()]
    for name in ("quality-gflops.svg", "quality-time.svg"):
        assert (out / name).read_text().startswith("<?xml") and "class_attention" in (out / name).read_text()
    before = contents(out / "runs")
    more = object_of(madtp(*command, "--methods", "madtp_static,tome", "--semantic-tokens", 7, "--json"))
    after = contents(out / "runs")
    assert {name: after[name] for name in before} == before, "what is done is left alone"
    assert [line["method"] for line in more["table"]] == [*lines, "madtp_static"]
    with locked(out):
        assert "another run writes there" in madtp(*command, "--methods", "tome", "--semantic-tokens", 7).wrong()
    said = madtp(*command, "--methods", "tome", "--semantic-tokens", 7)
    assert said.code == 0 and "tome" in said.out and "saved" in said.out and "{" not in said.out
    assert "semantic_tokens 7 -> 5" in madtp(*command, "--semantic-tokens", 5).wrong()


def test_trained_methods(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("compare", "--model", dense, "--data", data, "--out", out, "--reduction", "0.4", *SMALL)
    result = object_of(madtp(*command, "--methods", "dense,tome,madtp", "--epochs", 1, "--seeds", 2, "--json"))
    lines = {(line["trained"], line["method"]): line for line in result["table"]}
    assert [key for key in lines if key[0]] == [(True, "dense"), (True, "madtp"), (True, "tome")]
    assert [line["seeds"] for line in lines.values()] == [1, 1, 1, 2, 2, 2]
    for (trained, method), line in lines.items():
        assert (line["train_seconds"] is not None) == trained
        if method != "dense":
            assert line["reduction"] == pytest.approx(0.4, abs=0.12)
    runs = {name: row["metrics"] for name, row in rows_of(out).items()}
    assert len(runs) == 9 and {"tome-trained-0.4-seed1", "dense-trained-0-seed0", "madtp-untrained-0.4-seed0"} <= set(
        runs
    )
    config = json.loads((out / "runs" / "tome-trained-0.4-seed1" / "config.json").read_text())["madtp"]
    assert (config["method"], config["alpha"], config["straight_through"]) == ("tome", 0.0, 0.0)
    assert not list(out.rglob("checkpoint.pt"))


def test_retrieval_as_asked(madtp: Run, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-ranked and trained as its options say, which all rows share."""
    save_model(nano("retrieval"), nano_processor("retrieval"), tmp_path / "model")
    lengths: list[tuple[float, int]] = []
    whole = train.Trainer.run

    def spy(trainer: train.Trainer, resume: bool) -> None:
        lengths.append((trainer.task.momentum, trainer.task.queue))
        whole(trainer, resume)

    monkeypatch.setattr(train.Trainer, "run", spy)
    command = (
        "compare",
        "--model",
        tmp_path / "model",
        "--data",
        f"scenes:{SEED}:7",
        "--out",
        tmp_path / "out",
        *SMALL,
    )
    command = (*command, "--methods", "dense,tome", "--reduction", "0.3", "--epochs", 1)
    result = object_of(madtp(*command, "--k-test", 2, "--momentum", 0.5, "--queue", 3, "--json"))
    assert [row["scoring"] for row in result["rows"]] == [{"k_test": 2}] * 4
    assert lengths == [(0.5, 3)] * 2
    assert (result["k_test"], result["momentum"], result["queue"]) == (2, 0.5, 3)
    assert "k_test 2 -> None" in madtp(*command, "--momentum", 0.5, "--queue", 3).wrong()
    other = ("compare", "--model", dense, "--data", "scenes", "--out", tmp_path / "other", *SMALL)
    assert "--k-test, --queue is nothing for vqa" in madtp(*other, "--k-test", 2, "--queue", 3).wrong()
    assert not (tmp_path / "other").exists()


def test_rows_of_other_data_or_weights_are_not_mixed(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "model")
    shutil.copytree(data, tmp_path / "data")
    command = ("compare", "--model", tmp_path / "model", "--data", tmp_path / "data", "--out", tmp_path / "out", *SMALL)
    result = object_of(madtp(*command, "--methods", "dense", "--json"))
    assert result["rows"][0]["commit"] == result["commit"]
    questions = tmp_path / "data" / "test" / "questions.json"
    whole = questions.read_text()
    told = json.loads(whole)
    told[0][0] = "what else is there?"
    questions.write_text(json.dumps(told))
    assert "content '" in madtp(*command, "--methods", "dense,tome").wrong()
    questions.write_text(whole)
    save_model(nano_model(seed=1), processor(), tmp_path / "model")
    assert "digest '" in madtp(*command, "--methods", "dense,tome").wrong()
    assert list(rows_of(tmp_path / "out")) == ["dense-untrained-0-seed0"]


def test_wrong_input(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    command = ("compare", "--model", dense, "--data", data, *SMALL)
    assert "unknown tom" in madtp(*command, "--out", tmp_path / "a", "--methods", "dense,tom").wrong()
    assert "unknown setting 'lr'" in madtp(*command, "--out", tmp_path / "a", "--methods", "madtp:lr=1").wrong()
    assert "'x' is no number" in madtp(*command, "--out", tmp_path / "a", "--methods", "madtp:alpha=x").wrong()
    assert "first_block" in madtp(*command, "--out", tmp_path / "a", "--methods", "madtp:first_block=-1").wrong()
    deep = madtp(*command, "--out", tmp_path / "a", "--methods", "tome,madtp:first_block=3")
    assert "no block has the number 3; from 0, the towers have 3" in deep.wrong()
    assert "no block has the number 9" in madtp(*command, "--out", tmp_path / "a", "--first-block", 9).wrong()
    assert "names no method" in madtp(*command, "--out", tmp_path / "a", "--methods", ",").wrong()
    assert "--split" in madtp(*command, "--out", tmp_path / "a", "--split", "train").wrong()
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("keep")
    assert "something else" in madtp(*command, "--out", tmp_path / "b").wrong()
    assert (
        "dense:alpha=0: alpha is nothing for dense"
        in madtp(*command, "--methods", "dense:alpha=0", "--out", "c").wrong()
    )


def test_upop_by_other_verbs(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    command = ("--model", dense, "--data", data, "--reduction")
    found = object_of(madtp("calibrate", *command, "0.4", "--method", "upop", "--out", tmp_path / "a", "--json"))
    assert found["method"] == "upop" and found["reduction"] == pytest.approx(0.4, abs=0.02)
    config = json.loads((tmp_path / "a" / "config.json").read_text())["madtp"]
    assert config["widths"] and config["temperature"] == found["temperature"]
    evaluated = object_of(madtp("evaluate", "--model", tmp_path / "a", "--data", data, "--split", "val", "--json"))
    assert evaluated["gflops"]["reduction"] == pytest.approx(0.4, abs=0.05)
    several = madtp("calibrate", *command, "0.3,0.4", "--method", "upop", "--out", tmp_path / "b")
    assert "serves one budget" in several.wrong() and not (tmp_path / "b" / "config.json").exists()
    small = ("--epochs", 1, "--limit", 6, "--batch-size", 3, "--texts", 1, "--method", "upop", "--out", tmp_path / "c")
    assert "--fsdp" in madtp("compress", *command, "0.4", *small, "--fsdp").wrong()
    made = object_of(madtp("compress", *command, "0.4", *small, "--json"))
    assert made["method"] == "upop" and made["gflops"]["reduction"] == pytest.approx(0.4, abs=0.06)
    compared = madtp("compare", "--model", tmp_path / "a", "--data", data, "--out", tmp_path / "d", *SMALL)
    assert "weights taken out" in compared.wrong() and not (tmp_path / "d").exists()
    assert json.loads((tmp_path / "c" / "config.json").read_text())["madtp"]["widths"]
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert [row["speedup"] is not None for row in report["rows"]] == [True, True]
    again = madtp("compress", "--model", tmp_path / "c", "--data", data, "--reduction", "0.5", "--out", tmp_path / "d")
    assert "have been taken out" in again.wrong()
