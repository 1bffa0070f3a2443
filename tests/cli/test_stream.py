"""--stream on the command line: in one process and under torchrun (docs/scale.md), and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from cli.test_torchrun import told, torchrun
from madtp.checkpoints import STATE
from madtp.data.stream import COUNTS
from small import contents
from tars import write_scenes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_scenes(tmp_path_factory.mktemp("shards") / "big", (5, 2, 4), "vqa")
    return write_scenes(folder, (3,), "vqa", "val")


def test_train_compress_and_resume(madtp: Run, shards: Path, tmp_path: Path, tiny: None) -> None:
    """A vocabulary is read from the shards; what was counted is written, and read again by a run that goes on."""
    settings: tuple[Any, ...] = (
        "--data",
        shards,
        "--stream",
        "--shuffle-buffer",
        5,
        "--batch-size",
        3,
        "--questions",
        2,
    )
    settings += ("--epochs", 1, "--lr", 3e-3, "--device", "cpu", "--json")
    dense, cut = tmp_path / "dense", tmp_path / "cut"
    command = ("train", "--task", "vqa", "--size", "tiny", "--out", dense, *settings)
    result = json.loads(madtp(*command).out)
    assert json.loads((dense / COUNTS).read_text())["samples"] == {
        f"train-00{k}.tar": n for k, n in enumerate((5, 2, 4))
    }
    assert json.loads((dense / "run.json").read_text())["source"]["stream"]["shuffle_buffer"] == 5
    again = json.loads(madtp(*command, "--resume").out)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert "stream {" in madtp(*command, "--resume", "--workers", 2).wrong()
    before = contents(dense)
    counts = json.loads((dense / COUNTS).read_text())
    (dense / COUNTS).write_text(json.dumps({**counts, "samples": {**counts["samples"], "train-000.tar": 3}}))
    assert "images 11 -> 9" in madtp(*command, "--resume").wrong()  # it is this file that is read
    (dense / COUNTS).write_bytes(before[COUNTS])
    json.loads(madtp("compress", "--model", dense, "--reduction", 0.4, "--out", cut, *settings).out)
    assert (cut / COUNTS).read_bytes() == before[COUNTS]
    plain = tmp_path / "plain"
    madtp("train", "--model", dense, "--out", plain, "--data", shards, "--epochs", 1, "--device", "cpu")
    assert not (plain / COUNTS).exists()


@pytest.mark.parametrize("verb", ["train", "compress"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--data", "scenes", "--stream"),
            "scenes: only tar shards can be streamed, and one source of them; leave out",
        ),
        (("--data", "FOLDER", "--stream"), "only tar shards can be streamed, this is easy-vqa; leave out --stream"),
        (("--data", "SHARDS", "--shuffle-buffer", 7), "--shuffle-buffer: goes with --stream; else all samples are"),
        (("--data", "SHARDS/val-000.tar", "--stream"), "no split 'train'; it has val"),
    ],
)
def test_wrong_input(
    madtp: Run, model: Path, data: Path, shards: Path, tmp_path: Path, verb: str, options: tuple[Any, ...], said: str
) -> None:
    given = [str(word).replace("FOLDER", str(data)).replace("SHARDS", str(shards)) for word in options]
    more = ("--reduction", 0.4) if verb == "compress" else ()
    assert said in madtp(verb, "--model", model, "--out", tmp_path / "out", *more, *given).wrong()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_under_torchrun_a_run_goes_on_as_if_never_stopped(model: Path, shards: Path, tmp_path: Path) -> None:
    """Two processes of two loaders each, more than shards; the folder is put back to an earlier checkpoint."""
    command: tuple[Any, ...] = ("compress", "--model", model, "--data", shards, "--reduction", 0.4, "--stream")
    command += ("--workers", 2, "--batch-size", 2, "--epochs", 2, "--save-every", 1, "--keep", 9)
    command += ("--questions", 2, "--lr", 3e-3, "--device", "cpu", "--json", "--out")
    whole, run = tmp_path / "whole", tmp_path / "run"
    result = told(torchrun(*command, whole))
    shutil.copytree(whole, run)
    steps = sorted(run.glob("checkpoint-*.pt"), key=lambda path: int(path.stem.partition("-")[2]))
    shutil.copy(steps[0], run / STATE)
    for path in steps:
        path.unlink()
    again = told(torchrun(*command, run, "--resume"))
    assert {**again, "seconds": 0, "out": ""} == {**result, "seconds": 0, "out": ""}
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
