"""One of several processes is killed: the others end and say why, and the run goes on as if it had never stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from madtp.cli import lost
from test_train import assert_same_run

SAID = "another process of the run is gone (connection "


@pytest.mark.parametrize(
    ("error", "said"),
    [  # as gloo and torch's store put it, and a mistake of ours
        (RuntimeError("[/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:6"), "closed by peer"),
        (RuntimeError("Read error [127.0.0.1]:439: Connection reset by peer. This is typically"), "reset by peer"),
        (RuntimeError("failed to recv, got 0 bytes. Connection was likely closed. Did the"), "was likely closed"),
        (RuntimeError("op.preamble.length <= op.nbytes. 104 vs 8"), None),
        (ConnectionError("Connection reset by peer"), None),  # of a network that the run does not live by
    ],
)
def test_only_a_lost_process_is_told_of(
    error: Exception, said: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not lost.tell(error), "there is but one"
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert lost.tell(error) == (said is not None)
    told = capsys.readouterr().err
    line = f"madtp: process 2 of 3: {SAID}{said}); a training run goes on with --resume\n"
    assert told == ("" if said is None else line)


LEAVING = """
import atexit, os, sys, torch
from madtp.cli import main

class Late:
    def __del__(self, abort=os.abort):  # as a thread of gloo may, when the interpreter shuts down
        abort()

def verb(arguments):
    atexit.register(print, "at exit")
    print("done")
    if sys.argv[2] == "fails":
        raise ValueError("not ours")
    return int(sys.argv[2])

sys.late = Late()
main._run = verb
if sys.argv[1] == "of several":
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
try:
    main.run()
except (SystemExit, ValueError):
    print("comes back")
main.main()
"""


@pytest.mark.parametrize(
    ("who", "verb", "code"), [("of several", "3", 3), ("of several", "fails", 1), ("alone", "3", -signal.SIGABRT)]
)
def test_one_of_several_does_not_wait_for_the_interpreter_to_shut_down(who: str, verb: str, code: int) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    asked = [sys.executable, "-c", LEAVING, who, verb]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, env=env)
    assert (ran.returncode, ran.stdout) == (code, "done\ncomes back\ndone\n" + 2 * "at exit\n"), ran.stderr
    assert ("ValueError: not ours" in ran.stderr) == (verb == "fails")


@contextmanager
def torchrun(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """`torchrun --nproc_per_node 2 -m madtp ARGUMENTS`; ended with the block, if not before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", str(port))
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *where, "-m", "madtp", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def ended(*arguments: Any) -> None:
    with torchrun(*arguments) as run:
        said = run.communicate()
        assert run.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "more", "rank"),
    [
        ("train", ("--workers", 1), "0"),
        ("compress", ("--reduction", "0.4", "--accumulate", 2), "1"),
    ],
)
def test_a_killed_process_ends_the_others_and_the_run_goes_on(
    verb: str, more: tuple[Any, ...], rank: str, data: Path, model: Path, tmp_path: Path
) -> None:
    command = (verb, "--data", data, "--model", model, "--device", "cpu", "--epochs", 5, "--questions", 1, *more)
    command += ("--batch-size", 2, "--save-every", 2, "--json")
    whole, out = tmp_path / "whole", tmp_path / "run"
    ended(*command, "--out", whole)
    with torchrun(*command, "--out", out) as run:
        while not (out / "checkpoint-1.pt").is_file():  # the second is written
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        (victim,) = (child for child in psutil.Process(run.pid).children() if child.environ().get("RANK") == rank)
        victim.send_signal(signal.SIGKILL)
        printed, said = run.communicate(timeout=60)
        assert run.returncode not in (0, None) and printed == ""
    assert f"madtp: process {1 - int(rank)} of 2: {SAID}" in said
    assert "]: Traceback" not in said, "none but torchrun's own"
    assert f"rank      : {rank} (local_rank: {rank})\n  exitcode  : -9" in said, "torchrun names the one"
    ended(*command, "--out", out, "--resume")
    assert_same_run(out, whole)
