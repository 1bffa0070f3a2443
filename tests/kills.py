"""Kills runs at any instant and resumes them: `kills.py FOLDER SEED WORKERS HOW [PROCESSES]` prints what happened.

A program of its own, which imports everything once and forks a child for every life of a run. It does no backward pass
itself, after which torch lets no child do one. `FOLDER/whole` is a run that nobody killed.

HOW "time:N": `FOLDER/run` is killed N times after a random while, every second time as soon as a checkpoint is being
written. HOW "calls:A,B,C": the run in `FOLDER/A` is killed at its A-th call that moves, links, flushes or removes a
file, and so on; "calls:all" = at every one.

Of several processes (gloo) one is killed, or all at once; one that is left ends when it misses the other, or is ended.
"""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from madtp import checkpoints
from test_train import CONFIG, start

MADTP = {"reductions": (0.5,), "save_every": 1}
SEVERAL = {
    "batch_size": 1,
    "accumulate": 4,
    "epochs": 3,
}  # 6 steps an epoch for two, which end amid one of the optimiser


def live(
    out: Path, workers: int, before: Callable[[], None] = lambda: None, rank: int = 0, processes: int = 1, port: int = 0
) -> int:
    """A child that runs or resumes the run in `out` to its end; returns its process id."""
    if rank == 0 and out.is_dir() and not checkpoints.is_there(out):
        shutil.rmtree(out)  # as the command line has it: killed before its first checkpoint it begins anew
    resume = checkpoints.is_there(out)
    child = os.fork()
    if child:
        return child
    try:
        if processes > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            os.environ |= {name: str(value) for name, value in {**place, "MASTER_PORT": port}.items()}
            os.environ["MASTER_ADDR"] = "127.0.0.1"
        torch.manual_seed(time.monotonic_ns())  # whatever a new process has drawn
        before()
        trainer = start(out, replace(CONFIG, workers=workers, **MADTP, **(SEVERAL if processes > 1 else {})))
        trainer.run(resume)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Exit code, or the signal's number below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lives(out: Path, workers: int, processes: int) -> list[int]:
    """All processes of the run in `out`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [live(out, workers, rank=rank, processes=processes, port=port) for rank in range(processes)]


def end(children: list[int], killed: list[int]) -> tuple[list[int], int]:
    """Kill these of a run's processes; exit codes of them, and how many of the others ended by themselves then."""
    for child in killed:
        os.kill(child, signal.SIGKILL)
    codes, alone = [ended(child) for child in killed], 0
    for child in set(children) - set(killed):
        until = time.monotonic() + 5
        while time.monotonic() < until and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.01)
        alone += time.monotonic() < until
        os.kill(child, signal.SIGKILL)  # as torchrun does in the end
        ended(child)
    return codes, alone


def being_written(out: Path) -> bool:
    return any(out.glob(f".{checkpoints.STATE}.*.part"))


def by_time(out: Path, rounds: int, workers: int, draw: random.Random, usual: float, processes: int) -> dict[str, int]:
    """Kill `rounds` times, then let it end."""
    kills = writing = early = left = alone = 0
    while kills < rounds:
        children = lives(out, workers, processes)
        until = time.monotonic() + draw.uniform(0, usual)
        while kills % 2 and time.monotonic() < until and not being_written(out):
            pass
        while not kills % 2 and time.monotonic() < until:
            time.sleep(0.001)
        killed = children if draw.random() < 0.3 else [draw.choice(children)]
        codes, others = end(children, killed)
        if 0 in codes:  # it was faster: let it be killed in another life
            early += 1
            shutil.rmtree(out)
            continue
        kills += 1
        writing += being_written(out)
        left += len(children) - len(killed)
        alone += others
    assert [ended(child) for child in lives(out, workers, processes)] == [0] * processes
    told = {"kills": kills, "while_writing": writing, "ended_before_their_kill": early}
    return told | ({"left_behind": left, "of_them_ended_by_themselves": alone} if processes > 1 else {})


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
    processes = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    torch.set_num_threads(1)
    start(folder / "spare", CONFIG)  # what is read once is read here
    AcceleratorState._reset_state(True)  # a child may be one of several
    begin = time.monotonic()
    assert [ended(child) for child in lives(folder / "whole", 0, processes)] == [0] * processes
    usual = time.monotonic() - begin
    if mode == "time":
        told = by_time(folder / "run", int(which), workers, random.Random(seed), usual, processes)
    else:
        told = by_calls(folder, which, workers)
    sys.stdout.write(json.dumps({**told, "seconds_of_a_run": round(usual, 2)}) + "\n")


if __name__ == "__main__":
    main()
