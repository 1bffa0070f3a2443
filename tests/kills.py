"""Kills runs at any instant and resumes them: `python kills.py FOLDER SEED WORKERS HOW` prints what happened.

A program of its own, which imports everything once and forks a child for every life of a run. It does no backward pass
itself, after which torch lets no child do one. `FOLDER/whole` is a run that nobody killed.

HOW "time:N": `FOLDER/run` is killed N times after a random while, every second time as soon as a checkpoint is being
written. HOW "calls:A,B,C": the run in `FOLDER/A` is killed at its A-th call that moves, links, flushes or removes a
file, and so on; "calls:all" = at every one.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from madtp import checkpoints
from test_train import CONFIG, start

MADTP = {"reductions": (0.5,), "save_every": 1}


def live(out: Path, workers: int, before: Callable[[], None] = lambda: None) -> int:
    """A child that runs or resumes the run in `out` to its end; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        torch.manual_seed(time.monotonic_ns())  # whatever a new process has drawn
        before()
        if out.is_dir() and not checkpoints.is_there(out):
            shutil.rmtree(out)  # as the command line has it: killed before its first checkpoint it begins anew
        trainer = start(out, replace(CONFIG, workers=workers, **MADTP))
        trainer.run(resume=checkpoints.is_there(out))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Exit code, or the signal's number below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def being_written(out: Path) -> bool:
    return any(out.glob(f".{checkpoints.STATE}.*.part"))


def by_time(out: Path, rounds: int, workers: int, draw: random.Random, usual: float) -> dict[str, int]:
    """Kill `rounds` times, then let it end."""
    kills = writing = early = 0
    while kills < rounds:
        child = live(out, workers)
        until = time.monotonic() + draw.uniform(0, usual)
        while kills % 2 and time.monotonic() < until and not being_written(out):
            pass
        while not kills % 2 and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        if ended(child) == 0:  # it was faster: let it be killed in another life
            early += 1
            shutil.rmtree(out)
            continue
        kills += 1
        writing += being_written(out)
    assert ended(live(out, workers)) == 0
    return {"kills": kills, "while_writing": writing, "ended_before_their_kill": early}


def deadly(n: int) -> None:
    """From now on the n-th call that puts something on the disk kills the process, before it or after it in turn."""
    left = [n]

    def spoil(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, call)

    for name in ("replace", "link", "fsync", "unlink"):
        spoil(name)


def by_calls(out: Path, which: str, workers: int) -> dict[str, int]:
    """Kill a new run at each of these calls, and resume it."""
    kills = 0
    for n in itertools.count(1) if which == "all" else map(int, which.split(",")):
        place = out / str(n)
        code = ended(live(place, workers, lambda n=n: deadly(n)))
        if code == 0:  # there are no more
            break
        assert code == -signal.SIGKILL, code
        kills += 1
        assert ended(live(place, workers)) == 0
    return {"kills": kills}


def main() -> None:
    folder, seed, workers, (mode, _, which) = (
        Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].partition(":"),
    )  # fmt: skip
    torch.set_num_threads(1)
    start(folder / "spare", CONFIG)  # what is read once is read here
    begin = time.monotonic()
    assert ended(live(folder / "whole", 0)) == 0
    usual = time.monotonic() - begin
    if mode == "time":
        told = by_time(folder / "run", int(which), workers, random.Random(seed), usual)
    else:
        told = by_calls(folder, which, workers)
    sys.stdout.write(json.dumps({**told, "seconds_of_a_run": round(usual, 2)}) + "\n")


if __name__ == "__main__":
    main()
