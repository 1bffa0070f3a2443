"""The stages on Ray Data: it schedules them, holds back what runs ahead, tries lost work again, uses more machines.

A row of the data set is one chunk, so what a stage makes of it does not hang on how Ray cuts blocks.
"""

import logging
import os
import pickle
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import ray.data

from madtp.collection.job import Job, Plan
from madtp.collection.read import read
from madtp.collection.run import Cluster, Done
from madtp.collection.stages import Predict, decode
from madtp.collection.write import Answered, write
from madtp.errors import InputError
from madtp.runtime import keep_freed_memory

MOST_BLOCKS = 4096  # of the list of inputs; each is an object that the driver keeps


def run_ray(job: Job, plan: Plan, cluster: Cluster, done: Done) -> None:
    """Run the missing parts of a job on Ray.

    Raises:
        InputError: the cluster cannot be reached, or has no room for a single model.
    """
    mine = not ray.is_initialized()
    if mine:
        _check_address(cluster.address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Else processes that read, which take no core, end after a second without work: each start imports torch.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
        try:
            logging.getLogger("ray.data").setLevel(logging.WARNING)
            ray.init(address=cluster.address or "local", log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise _no_cluster() from error
    try:
        with _settings():
            for row in _pipeline(job, plan, cluster).iter_rows():
                done(row)
    finally:
        if mine:
            ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raises InputError where nobody listens: Ray itself goes on trying for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError, ValueError) as error:  # no number of a port, no name of a host
            raise _no_cluster() from error


def _no_cluster() -> InputError:
    return InputError("no Ray cluster answers", "--address", "start one, or leave --address out")


@contextmanager
def _settings() -> Iterator[None]:
    """Ray Data's settings for the block; those before come back."""
    context = ray.data.DataContext.get_current()
    mine = {"target_max_block_size": 1, "enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in mine}
    try:
        for name, value in mine.items():  # a block a chunk: each is handed on, and written, as soon as it is answered
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _pipeline(job: Job, plan: Plan, cluster: Cluster) -> Any:
    gpu, cores = job.device == "cuda", job.threads or 1
    room = cluster.actors or _room(gpu, cores)
    # On the CPU the models take the cores, and as many of the small stages run beside them.
    beside = ray.data.TaskPoolStrategy(min(room, len(plan.inputs)))
    small: dict[str, Any] = {"num_cpus": 1} if gpu else {"num_cpus": 0, "compute": beside}
    model: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": cores}
    model["compute"] = ray.data.ActorPoolStrategy(min_size=1, max_size=room)
    one: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    inputs = ray.data.from_items(
        [{"row": pickle.dumps(source)} for source in plan.inputs],
        override_num_blocks=min(len(plan.inputs), MOST_BLOCKS),
    )
    read = inputs.map_batches(_read_and_decode, fn_kwargs={"job": job}, **one, **small)
    if not gpu:  # writing takes milliseconds, a process for it seconds
        return read.map_batches(_PredictAndWrite, fn_constructor_kwargs={"job": job}, **one, **model)
    answered = read.map_batches(_Predict, fn_constructor_kwargs={"job": job}, **one, **model)
    return answered.map_batches(_write, fn_kwargs={"job": job}, **one, **small)


def _room(gpu: bool, cores: int) -> int:
    """How many models the cluster has room for. Raises InputError if for none."""
    there = ray.cluster_resources()
    room = int(there.get("GPU", 0)) if gpu else int(there.get("CPU", 0)) // cores
    if not room:
        what = "GPUs" if gpu else f"{cores} cores"
        raise InputError(
            f"the cluster has no room for a model on {what}", "--engine ray", "use another --device or --threads"
        )
    return room


def _pack(thing: object) -> pa.Table:
    return pa.table({"row": pa.array([pickle.dumps(thing, protocol=5)], pa.large_binary())})


def _unpack(batch: pa.Table) -> Any:
    return pickle.loads(batch["row"][0].as_buffer())


def _read_and_decode(batch: pa.Table, job: Job) -> Iterator[pa.Table]:
    for chunk in read(job, _unpack(batch)):
        yield _pack(decode(job, chunk))


class _Predict:
    def __init__(self, job: Job) -> None:
        keep_freed_memory()
        self.predict = Predict(replace(job, threads=job.threads or 1))

    def __call__(self, batch: pa.Table) -> pa.Table:
        return _pack(self.predict(_unpack(batch)))


class _PredictAndWrite(_Predict):
    def __call__(self, batch: pa.Table) -> pa.Table:
        return _written(self.predict.job, self.predict(_unpack(batch)))


def _write(batch: pa.Table, job: Job) -> pa.Table:
    return _written(job, _unpack(batch))


def _written(job: Job, answered: Answered) -> pa.Table:
    return pa.Table.from_pylist([write(job.out, answered)])
