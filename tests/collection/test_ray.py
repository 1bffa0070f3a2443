"""The same answers from Ray, from one machine and from several, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from collection.conftest import answers, errors, write_shards
from madtp.collection.job import PARTS, Job
from madtp.collection.run import Cluster, run
from madtp.errors import InputError

pytestmark = [
    # Ray's own: deprecated settings that its constructor sets, and what its processes leave open.
    pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

Jobs = Callable[..., Job]
SOURCES = str(Path(__file__).parents[2] / "src")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reported to Ray's makers; workers find this tree."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", SOURCES)


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(job: Jobs, tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", 2, 7)
    local = job("caption", "caption", beams=1)
    run(local, str(data))
    (local.out / PARTS / "00001-00001-of-00002.parquet").unlink()
    mine = replace(local, out=tmp_path / "ray")
    done = run(mine, str(data), engine="ray", cluster=Cluster(actors=1))
    assert (done["parts"], done["rows"], done["errors"]) == (4, 12, 2)
    assert run(local, str(data), engine="ray")["parts"] == 1, "either goes on where the other stopped"
    assert answers(mine.out) == answers(local.out) and errors(mine.out) == errors(local.out)
    assert run(mine, str(data), engine="ray")["parts"] == 0, "nothing left, no cluster asked for"


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens(address: str, job: Jobs, tmp_path: Path) -> None:
    mine, data = job("caption", "caption", beams=1), str(write_shards(tmp_path / "data", 1, 2))
    with pytest.raises(InputError, match="--address: no Ray cluster answers; start one"):
        run(mine, data, engine="ray", cluster=Cluster(address))
    assert not (mine.out / PARTS).exists()


@pytest.mark.slow
def test_a_cluster_without_room_for_a_model(job: Jobs, tmp_path: Path) -> None:
    mine, data = job("caption", "caption", beams=1), str(write_shards(tmp_path / "data", 1, 2))
    with pytest.raises(InputError, match="has no room for a model on 5003 cores"):
        run(replace(mine, threads=5003), data, engine="ray")
    assert not (mine.out / PARTS).exists()


CLUSTER = """
    import sys, time
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    for _ in range(2):
        node = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:  # "kill": the last node dies, as a preempted machine does
        if line.strip() == "kill":
            cluster.remove_node(node, allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()
"""
JOB = """
    import sys
    from pathlib import Path
    from madtp.collection.job import Job
    from madtp.collection.run import Cluster, run

    model, out, data, address = sys.argv[1:]
    job = Job(model, "caption", Path(out), batch_size=3, part_size=5, beams=1, kind="caption", threads=1)
    print(run(job, data, engine="ray", cluster=Cluster(address)), flush=True)
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def python() -> Iterator[Start]:
    """Starts code as a process of its own; whatever is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def wait(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def cluster(python: Start) -> Iterator[tuple[str, Callable[[], None]]]:
    """Address of a cluster of three machines, and what kills one of them."""
    process = python(CLUSTER)
    assert process.stdin is not None and process.stdout is not None
    address = process.stdout.readline().strip()
    while address and ":" not in address:
        address = process.stdout.readline().strip()
    assert address

    def kill() -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("kill\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "killed"

    yield address, kill
    process.stdin.close()  # it takes its machines along
    process.wait(300)


@pytest.mark.slow
def test_a_machine_dies_then_the_job_and_all_is_there_once(
    cluster: tuple[str, Callable[[], None]], python: Start, job: Jobs, tmp_path: Path
) -> None:
    """20 shards on 3 machines; the second start does what is missing, and it equals one process's answers."""
    address, kill = cluster
    data, local = write_shards(tmp_path / "data", 20, 23), job("caption", "caption", beams=1)
    out = tmp_path / "ray"

    def written() -> int:
        return len(list((out / PARTS).glob("*.parquet")))  # a part's errors lie elsewhere

    first = python(JOB, local.model, out, data, address)
    wait(lambda: written() > 7, first)
    kill()
    at = written()
    wait(lambda: written() > at + 11, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {file: file.stat().st_mtime_ns for file in (out / PARTS).glob("*.parquet")}
    assert 18 < len(before) < 100, "in mid-run"
    second = python(JOB, local.model, out, data, address)
    said, _ = second.communicate(timeout=900)
    assert second.returncode == 0 and f"'parts': {100 - len(before)}" in said, said
    assert all(file.stat().st_mtime_ns == time for file, time in before.items()), "nothing is done twice"
    run(local, str(data))
    assert len(answers(out)) == 20 * 22
    assert answers(out) == answers(local.out) and errors(out) == errors(local.out)
