"""`madtp tune`, in small."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from cli.test_verbs import object_of
from madtp.files import locked
from madtp.model.load import load
from small import contents, model_folder

SMALL = ("--limit", 6, "--batch-size", 3, "--texts", 1, "--epochs", 1, "--reduction", 0.2)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "dense")


def test_a_search_and_what_it_writes(madtp: Run, dense: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command: tuple[Any, ...] = ("tune", "--model", dense, "--data", data, "--out", out, *SMALL)
    command += ("--search", "lr=1e-3..1e-2 alpha=0,0.3 semantic_tokens=7 first_block=1")
    result = object_of(madtp(*command, "--trials", 2, "--json"))
    assert json.loads((out / "tune.json").read_text()) == result
    assert result["search"] == {"lr": "0.001..0.01", "alpha": [0, 0.3], "semantic_tokens": [7], "first_block": [1]}
    assert [row["trial"] for row in result["trials"]] == [0, 1]
    best = json.loads((out / "best.json").read_text())
    assert not [path for path in (out / "runs").glob("*/model.safetensors") if path.parent != out / best["folder"]]
    assert best["value"] == max(row["value"] for row in result["trials"]) == result["best"]["value"]

    # the command that it names makes the same model
    words = shlex.split(best["command"].replace("--out OUT", f"--out {tmp_path / 'again'}"))
    again = object_of(madtp(*words[1:], "--json"))
    assert again["metrics"] == best["metrics"] and again["temperature"] == best["temperature"]
    assert load(tmp_path / "again").pruning == load(out / best["folder"]).pruning
    assert load(tmp_path / "again").pruning.first_block == 1
    name = "model.safetensors"
    assert contents(tmp_path / "again")[name] == contents(out / best["folder"])[name]

    with locked(out):
        assert "another run writes there" in madtp(*command, "--trials", 3).wrong()
    said = madtp(*command, "--trials", 2)
    assert said.code == 0 and " best " in said.out and "semantic_tokens=7" in said.out and "{" not in said.out
    assert "epochs 1 -> 2" in madtp(*command, "--epochs", 2).wrong()


def test_wrong_input(madtp: Run, dense: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("tune", "--model", dense, "--data", data, *SMALL, "--out", tmp_path / "a")
    assert "unknown setting 'tau'" in madtp(*command, "--search", "tau").wrong()
    assert "alpha=x: no values" in madtp(*command, "--search", "alpha=x").wrong()
    assert "no block has the number 3" in madtp(*command, "--search", "first_block=0,3").wrong()
    assert "--trials" in madtp(*command, "--trials", 0).wrong()
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("keep")
    assert "something else than a search" in madtp(*command[:-1], tmp_path / "b").wrong()
    monkeypatch.delitem(sys.modules, "madtp.tune")
    monkeypatch.setitem(sys.modules, "optuna", None)  # as if it were not there
    assert 'pip install "madtp[tune]"' in madtp(*command).wrong()
