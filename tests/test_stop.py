"""SIGTERM and Ctrl-C: the step is finished, the checkpoint written, and the run that goes on is the same run."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from madtp.checkpoints import STATE
from madtp.stop import Stop, Stopped
from test_train import CONFIG, after, assert_same_run, start

SHORT = replace(CONFIG, epochs=1, save_every=100)  # 5 steps; no checkpoint but at the end


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    start(out, SHORT).run()
    return out


@pytest.mark.parametrize(
    ("number", "reports", "step", "due", "workers"),
    [
        (signal.SIGTERM, 3, 3, False, 0),
        (signal.SIGINT, 2, 2, False, 2),  # with pictures loaded elsewhere
        (signal.SIGTERM, 5, 5, True, 0),  # in the last step of the epoch: its validation is left to do
        (signal.SIGTERM, 6, 5, True, 0),  # in the validation, its line written
    ],
)
def test_a_signal_stops_with_a_checkpoint(
    number: signal.Signals, reports: int, step: int, due: bool, workers: int, tmp_path: Path, whole: Path
) -> None:
    trainer = start(
        tmp_path, replace(SHORT, workers=workers), report=after(reports, lambda: signal.raise_signal(number))
    )
    before = signal.getsignal(number)
    said = f"stopped by {number.name}: the checkpoint of step {step} is written"
    with pytest.raises(Stopped, match=said) as stopped, trainer.stop.listening():
        trainer.run()
    assert stopped.value.code == (0 if number == signal.SIGTERM else 130)
    assert signal.getsignal(number) == before
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert (state["step"], state["due"]) == (step, due)
    torch.manual_seed(5)
    start(tmp_path, SHORT).run(resume=True)
    assert_same_run(tmp_path, whole)


def test_work_that_changes_nothing_ends_at_once() -> None:
    stop = Stop()
    with stop.listening():
        with pytest.raises(Stopped, match="stopped by SIGTERM: nothing was lost"), stop.at_once("nothing was lost"):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped), stop.at_once():
            pytest.fail("it began")


TWICE = """
import os, signal
from madtp.stop import Stop
stop = Stop()
with stop.listening():
    signal.raise_signal(signal.{first})
    print("goes on", flush=True)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        print("not reached", flush=True)
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_ctrl_c_twice_ends_at_once(first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE.format(first=first)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "goes on\n")
    assert f"{first}: stopping after this step" in done.stderr and "ended at once" in done.stderr
