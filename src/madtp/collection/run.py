"""A job from end to end, on one of two engines that run the same stages."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from madtp.collection.inputs import Input, find_inputs
from madtp.collection.job import Job, Plan, make_plan
from madtp.collection.read import read
from madtp.collection.stages import Decoded, Predict, decode
from madtp.collection.write import gather_errors, write
from madtp.errors import InputError

Done = Callable[[dict[str, Any]], None]
"""Told of every part that was written: `part`, `rows`, `errors`; `share` of its input, of how many `inputs`."""


@dataclass(frozen=True)
class Cluster:
    """How to use a Ray cluster.

    Attributes:
        address: of the cluster, as `ray.init` takes it; None = one on this machine, for the time of the job.
        actors: most models at once; None = as many as the cluster has room for when the job starts.
    """

    address: str | None = None
    actors: int | None = None


def run(
    job: Job, data: str, *, engine: str = "local", cluster: Cluster | None = None, done: Done | None = None
) -> dict[str, Any]:
    """Do what of a job is missing; the same call again does nothing twice.

    Args:
        job: what to do.
        data: the collection, as `find_inputs` takes it.
        engine: "local", one process, or "ray".
        cluster: for Ray.
        done: told of every part.

    Returns:
        The keys of `predict --json` that are the run's.

    Raises:
        InputError: an engine that is not known or not installed, or as `find_inputs`, `make_plan` and `Predict`.
    """
    if engine not in ("local", "ray"):
        raise InputError(f"unknown engine {engine!r}", "--engine", "use local or ray")
    _need("pyarrow")
    if engine == "ray":
        _need("ray")
    inputs = find_inputs(data, job.part_size)
    if job.asks and any(one.kind == "files" for one in inputs):
        raise InputError("a folder of pictures holds no questions", data, "give --text, to ask of every picture")
    plan = make_plan(job, inputs)
    total = {"parts": 0, "rows": 0}
    begin = time.perf_counter()

    def count(written: dict[str, Any]) -> None:
        total["parts"] += bool(written["part"])
        total["rows"] += written["rows"]
        if done is not None:
            whole = written["part"].rpartition("-of-")[2]  # an input that cannot be read is no part, and done
            done({**written, "share": 1 / int(whole or 1), "inputs": len(plan.inputs)})

    if plan.inputs:
        if engine == "ray":
            from madtp.collection.on_ray import run_ray

            run_ray(job, plan, cluster or Cluster(), count)
        else:
            run_local(job, plan, count)
    seconds = time.perf_counter() - begin
    return {
        "inputs": len(inputs),
        "parts_before": plan.parts_before,
        **total,
        "errors": gather_errors(job.out),
        "seconds": seconds,
    }


def run_local(job: Job, plan: Plan, done: Done) -> None:
    """The stages in this process; the next part's pictures are read and decoded while the model has this one's."""
    predict = Predict(job)
    chunks = (chunk for source in plan.inputs for chunk in read(job, source))
    with closing(_ahead(decode(job, chunk) for chunk in chunks)) as parts:
        for decoded in parts:
            done(write(job.out, predict(decoded)))


def _ahead(parts: Generator[Decoded]) -> Generator[Decoded]:
    """The same, each made in a thread while the one before is used; no more than that one is held."""
    with closing(parts), ThreadPoolExecutor(1, "decode") as thread:
        coming = thread.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = thread.submit(next, parts, None)
            yield part


def _need(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise InputError(f"needs {module}", "madtp predict --data", "pip install 'madtp[scale]'")


__all__ = ["Cluster", "Input", "run", "run_local"]
