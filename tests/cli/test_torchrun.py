"""The commands of docs/scale.md under torchrun: two processes on gloo write and print what one does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cli.conftest import Run
from small import model_folder
from test_house import PACKAGE

TRAINED = ("--epochs", 2, "--questions", 2, "--lr", 3e-3, "--seed", 7)


def torchrun(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node 2 -m madtp ARGUMENTS`, without Java, which takes long to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "madtp"]
    own = {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", "PATH": str(Path(sys.executable).parent)}
    return subprocess.run(
        command + [str(argument) for argument in arguments],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object on stdout, which the first process alone prints."""
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert isinstance(result, dict)
    return result


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def alike(two: Path, one: Path) -> None:
    """Two runs' losses and validations, and the models that they wrote."""
    assert len(logged(two)) == len(logged(one)) > 2
    for mine, theirs in zip(logged(two), logged(one), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() & {"step", "epoch", "loss", "loss_task", "loss_align", "reduction", "val"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), name
    weights = load_file(one / "model.safetensors")
    for name, value in load_file(two / "model.safetensors").items():
        # Keys' biases change no attention: their gradient is rounding, of which Adam makes whole steps.
        if not name.endswith(("key.bias", "qkv.bias")):
            assert float((value - weights[name]).abs().mean()) < 3e-4, name
    assert (two / "report.json").is_file() and not list(two.glob(".*.part"))


def test_evaluate(madtp: Run, model: Path, data: Path) -> None:
    """3 pictures, one a batch: two for one process, one for the other."""
    asked = ("evaluate", "--model", model, "--data", data, "--device", "cpu", "--batch-size", 1, "--json")
    two, one = told(torchrun(*asked)), json.loads(madtp(*asked).out)
    assert two["n"] == one["n"] > 3 and 0.3 < two["gflops"]["reduction"] < 0.6
    assert {**two, "seconds": 0} == {**one, "seconds": 0}


def test_what_cannot_be_shared_out_ends_in_one_line(madtp: Run, model: Path, data: Path, tmp_path: Path) -> None:
    asked = ("compress", "--model", model, "--data", data, "--reduction", 0.4, "--out", tmp_path / "out", "--fsdp")
    assert madtp(*asked).wrong().startswith("--fsdp: shares a model out to several processes; start it by torchrun")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_train_compress_evaluate(madtp: Run, data: Path, tmp_path: Path) -> None:
    """A dense model made better, compressed and evaluated: as in one process with batches of both."""
    start = model_folder(tmp_path / "start")
    results = {}
    for name, size in (("two", 2), ("one", 4)):

        def run(*arguments: Any, name: str = name) -> dict[str, Any]:
            arguments = (*arguments, "--device", "cpu", "--json")
            return told(torchrun(*arguments)) if name == "two" else json.loads(madtp(*arguments).out)

        home = tmp_path / name
        settings = ("--data", data, "--batch-size", size, *TRAINED)
        results[name] = [
            run("train", "--model", start, "--out", home / "dense", *settings),
            run("compress", "--model", home / "dense", "--reduction", 0.4, "--out", home / "cut", *settings),
            run("evaluate", "--model", home / "cut", "--data", data, "--split", "test", "--batch-size", 1),
        ]
    for mine, theirs in zip(results["two"], results["one"], strict=True):
        assert mine["metrics"] == pytest.approx(theirs["metrics"], abs=1e-6)
        assert mine["gflops"]["reduction"] == pytest.approx(theirs["gflops"]["reduction"], abs=1e-3)
        assert (mine["n"], mine["split"]) == (theirs["n"], theirs["split"])
    assert results["two"][1]["gflops"]["reduction"] == pytest.approx(0.4, abs=0.05)
    assert results["two"][1]["temperature"] == pytest.approx(results["one"][1]["temperature"], rel=1e-3)
    parts = ("--fsdp", "--gradient-checkpointing", "--device", "cpu", "--json")
    settings = ("--data", data, "--batch-size", 2, *TRAINED, *parts)
    dense, out = tmp_path / "two" / "dense", tmp_path / "two" / "parts"
    told(torchrun("compress", "--model", dense, "--reduction", 0.4, "--out", out, *settings))
    for mine, theirs in (("dense", "dense"), ("cut", "cut"), ("parts", "cut")):
        alike(tmp_path / "two" / mine, tmp_path / "one" / theirs)
