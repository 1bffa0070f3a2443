"""Runs that were killed at any instant and resumed end as one that nobody killed, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from test_train import assert_same_run

HERE = Path(__file__).parent


def kill(folder: Path, seed: int, workers: int, how: str, processes: int = 1) -> dict[str, Any]:
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
    done = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), str(folder), str(seed), str(workers), how, str(processes)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{told}\n")
    return told


def test_killed_while_it_put_a_checkpoint_on_the_disk(tmp_path: Path) -> None:
    """At the second: before the first gets another name, before the second takes its place, and right after."""
    calls = ["7", "9", "10"]
    assert kill(tmp_path, 0, 0, "calls:" + ",".join(calls))["kills"] == len(calls)
    for call in calls:
        assert_same_run(tmp_path / call, tmp_path / "whole")
        assert not list((tmp_path / call).glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 2)])
def test_killed_at_20_random_instants(seed: int, workers: int, tmp_path: Path) -> None:
    told = kill(tmp_path, seed, workers, "time:20")
    assert told["kills"] == 20 and told["while_writing"] >= 5
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_one_of_two_processes_or_both_killed_at_20_random_instants(tmp_path: Path) -> None:
    told = kill(tmp_path, 3, 1, "time:20", processes=2)
    assert told["kills"] == 20 and told["while_writing"] >= 1
    assert told["left_behind"] >= 5 and told["of_them_ended_by_themselves"] >= 3
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_every_call_that_puts_something_on_the_disk(tmp_path: Path) -> None:
    kills = kill(tmp_path, 0, 0, "calls:all")["kills"]
    assert kills > 50
    for call in range(1, kills + 1):
        assert_same_run(tmp_path / str(call), tmp_path / "whole")
