"""Runs of training and evaluation in one process or in each of two: what test_processes.py compares."""

import io
import json
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import typer
from torch.distributed.tensor import DTensor

from madtp.cli.lost import leave, noticing
from madtp.data.faults import Faults
from madtp.errors import InputError
from madtp.evaluate import batches as batches_of
from madtp.evaluate import evaluate, measure_reduction
from madtp.recipe import Progress, TrainConfig
from madtp.stop import Stopped
from madtp.task.distill import Teacher
from madtp.task.sharded import gather_helper, whole
from madtp.task.step import order_of_epoch
from madtp.train import Trainer
from small import KINDS, nano, nano_task, samples

# 3 steps an epoch of 4, 4 and 3 pictures; two processes have 2 and 2, then 2 and 1.
IMAGES, GLOBAL, VAL = 11, 4, 5
CONFIG = TrainConfig(epochs=2, texts=2, lr=3e-3, seed=7, save_every=100, eval_every=2)
TARGET = 0.4
OPTIONS: dict[str, dict[str, Any]] = {
    "caption": {"beams": 1, "longest": 11},
    "retrieval": {"queue": 5, "momentum": 0.9, "k_test": 3},
    "clip": {"queue": 5, "momentum": 0.9},
}
RUNS: dict[str, dict[str, Any]] = {
    "dense": {},
    "compressed": {"reductions": (0.0, TARGET)},
    "taught": {"reductions": (TARGET,), "distill": 2.0},
    "accumulated": {"accumulate": 2, "tag_epochs": 1},
}
BROKEN_OFF: dict[str, Any] = {"accumulate": 2, "epochs": 2, "eval_every": 1, "reductions": (TARGET,), "shift": 1}
# What is shared out to the processes, momentum towers among it.
SHARDED: dict[str, dict[str, Any]] = {
    "sharded": {"reductions": (0.0, TARGET), "fsdp": True},
    "sharded and more": {"reductions": (TARGET,), "fsdp": True, "gradient_checkpointing": True, "accumulate": 2},
    "sharded, not followed": {"reductions": (0.0, TARGET), "fsdp": True},
    "sharded, not guided": {"reductions": (TARGET,), "fsdp": True, "gradient_checkpointing": True},
}
# Of a run: the task's options, the model's pruning.
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sharded, not followed": ({"momentum": 0.0}, {}),
    "sharded, not guided": ({}, {"method": "tome"}),  # no semantic token has a say in it
}
DONE = [(kind, "compressed") for kind in KINDS]
FOLLOWED = ("retrieval", "clip")  # by momentum towers
PARTS = [("vqa", "sharded and more"), ("retrieval", "sharded and more"), ("clip", "sharded")]
EVERY = [(kind, run) for kind in KINDS for run in ("sharded", "sharded and more")]
SLOW_PARTS = [run for run in EVERY if run not in PARTS] + [(kind, run) for kind in FOLLOWED for run in OTHERS]
SLOW = [(kind, "taught") for kind in ("vqa", "caption", "retrieval")] + [("vqa", "accumulated")]


def train(kind: str, run: str, out: Path, processes: int) -> dict[str, Any]:
    """Losses of every step, the model in the end, what steers its budget, and what it scored."""
    out.mkdir(parents=True, exist_ok=True)
    options, pruning = OTHERS.get(run, ({}, {}))
    task, model = nano_task(kind, **OPTIONS.get(kind, {}) | options), nano(kind, CONFIG.seed, **pruning)
    losses: list[float] = []

    def report(progress: Progress) -> None:
        if progress.loss == progress.loss:
            losses.append(progress.loss)

    settings = RUNS.get(run) or SHARDED.get(run, {})
    if processes == 1:  # what that of several is compared with
        settings = {**settings, "fsdp": False, "gradient_checkpointing": False}
    config = replace(CONFIG, batch_size=GLOBAL // processes, **settings)
    teacher = Teacher(model, config.distill) if config.distill else None
    data = [samples(task.name, split, count) for split, count in (("train", IMAGES), ("val", VAL))]
    trainer = Trainer(model, task, *data, out, config, report, "cpu", teacher=teacher)
    result = trainer.run()
    helper = gather_helper(trainer.helper) or {}
    return {
        "losses": losses,
        "model": dict(trainer.bare.state_dict()),
        "helper": dict(helper),
        "strengths": [c and c.strength for c in trainer.controllers],
        "smooth": [c and c.smooth for c in trainer.controllers],
        "temperature": trainer.bare.temperature,
        "metrics": result.metrics,
        "reduction": result.reduction,
    }


def answer(kind: str) -> dict[str, Any]:
    """An evaluation in batches that do not go round, and what a calibration measures."""
    task, model = nano_task(kind, **OPTIONS.get(kind, {})), nano(kind, temperature=3.0)
    data = samples(task.name, "val", VAL)
    result = evaluate(model, task, data, batch_size=2)
    told = {key: value for key, value in result.to_dict().items() if key != "seconds"}
    reductions, some = [], list(batches_of(task, data, 2, model.device))
    for temperature in (1.0, 3.0, 11.0):
        model.temperature = temperature
        reductions.append(measure_reduction(model, task, some))
    return {
        "told": json.dumps(told),
        "answers": [(p.id, p.answer) for p in result.predictions],
        "reductions": reductions,
    }


def trainer_of(
    out: Path, report: Callable[[Progress], None] | None = None, kind: str = "vqa", **settings: Any
) -> Trainer:
    """A short run of two processes, each with its own wish to stop, its own broken pictures and its own NaN."""
    out.mkdir(parents=True, exist_ok=True)
    config, task = replace(CONFIG, batch_size=GLOBAL // 2, **settings), nano_task(kind, **OPTIONS.get(kind, {}))
    data = [samples(task.name, split, count) for split, count in (("train", IMAGES), ("val", VAL))]
    faults = Faults("skip", 0.5)
    return Trainer(nano(kind, config.seed), task, *data, out, config, report, "cpu", faults=faults)


def troubled(rank: int, home: Path) -> dict[str, Any]:
    """What befalls the second process alone: NaN in step 2, a batch that cannot be read, a signal after step 3."""
    told: dict[str, Any] = {}

    def keep(name: str, trainer: Trainer) -> None:
        model = {key: value.clone() for key, value in trainer.bare.state_dict().items()}
        counts = trainer.faults.counts()
        told[name] = {"step": trainer.step, "bad": trainer.bad.total, "skipped": counts, "model": model}

    trainer = trainer_of(home / "bad")
    loss = trainer.task.loss

    def spoilt(*inputs: Any) -> Any:
        value, logs, trace = loss(*inputs)
        return value * (math.nan if rank and trainer.step == 1 else 1.0), logs, trace

    trainer.task.loss = spoilt  # type: ignore[method-assign]
    trainer.run()
    keep("bad", trainer)

    trainer = trainer_of(home / "torn")
    broken = order_of_epoch(IMAGES, GLOBAL // 2, (1, 2), CONFIG.seed, 0)[1]

    class Torn(type(trainer.dataset)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            if index in broken:
                raise InputError("cannot be read", str(index))
            return super().__getitem__(index)

    trainer.dataset.__class__ = Torn
    trainer.run()
    keep("torn", trainer)

    trainer = trainer_of(home / "whole", **BROKEN_OFF)
    trainer.run()
    keep("whole", trainer)

    for name, asked in (("stopped", 1), ("again", 3)):  # amid a step of two batches; at an epoch's end, amid one too

        def report(progress: Progress, asked: int = asked) -> None:
            if rank and progress.step == asked and progress.loss == progress.loss:
                signal.raise_signal(signal.SIGTERM)

        torch.manual_seed(1000 + asked)  # whatever else the new process drew before
        trainer = trainer_of(home / "stopped", report, **BROKEN_OFF)
        try:
            with trainer.stop.listening():
                trainer.run(resume=name == "again")
        except Stopped as stopped:
            told[f"{name}, said"] = str(stopped)
        keep(name, trainer)
    trainer = trainer_of(home / "stopped", **BROKEN_OFF)
    trainer.run(resume=True)
    keep("resumed", trainer)
    return told


def left_alone() -> str:
    """What a process says when the other has left it."""
    said = io.StringIO()
    with redirect_stderr(said), suppress(typer.Exit), noticing():
        world = [torch.zeros(7)] * 2
        torch.distributed.all_gather(world, torch.zeros(7))
    return said.getvalue()


def stopped_in_parts(kind: str, home: Path) -> dict[str, Any]:
    """A sharded run, and another that is stopped within a step of the optimiser and goes on in a new trainer."""
    settings = {"accumulate": 2, "fsdp": True, "reductions": (TARGET,)}
    told: dict[str, Any] = {}

    def report(progress: Progress) -> None:
        if progress.step == 3:  # an epoch ends amid a step of two batches
            signal.raise_signal(signal.SIGTERM)

    for name, told_of, resume in (("whole", None, False), ("stopped", report, False), ("stopped", None, True)):
        trainer = trainer_of(home / f"parts-{name}-{kind}", told_of, kind, **settings)
        with suppress(Stopped), trainer.stop.listening():
            trainer.run(resume)
        model = {key: value.clone() for key, value in trainer.bare.state_dict().items()}
        helper = {key: value.clone() for key, value in (gather_helper(trainer.helper) or {}).items()}
        told["resumed" if resume else name] = {
            "model": model,
            "helper": helper,
            "step": trainer.step,
            "parts": size_of(trainer.trained.parameters()),
            "held": size_of(x for entry in trainer.optimizer.state.values() for x in entry.values()),
            "towers": size_of(trainer.helper.towers.parameters()) if helper else 0,
        }
    return told


def uneven(rank: int, kind: str, home: Path) -> dict[str, Any]:
    """One process prunes, in the other no block does: the gradient of what both share, whole and in parts."""
    told: dict[str, Any] = {}
    for name in ("whole", "parts"):
        trainer = trainer_of(home / f"uneven-{name}", None, kind, fsdp=name == "parts")
        alpha = 1.0 if kind in FOLLOWED else 0.0
        settings = replace(trainer.bare.pruning, temperature=5.0, alpha=alpha, first_block=97 * rank)
        trainer.bare.config.madtp = settings.to_dict()  # past the setter, which refuses a block that is not there
        loss, _, trace = trainer.model.train()(next(trainer._batches(0)))
        loss.backward()
        told[name] = whole(trainer.trained.madtp_guidance.semantic_tokens.grad)
        told["pruned"] = any(before > after for _, before, after in trace.steps())
    return told


def size_of(tensors: Iterable[Any]) -> int:
    """Numbers in this process's parts."""
    return sum(x.to_local().numel() if isinstance(x, DTensor) else x.numel() for x in tensors)


def process(rank: int, port: int, folder: str, runs: list[tuple[str, str]]) -> None:
    """One of two processes; leaves its results in the folder."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of [1, 1, c]: the same memory
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PATH": folder}  # no Java: it takes long
    os.environ["OMP_NUM_THREADS"] = "1"
    home = Path(folder)
    for kind, run in runs:
        torch.save(train(kind, run, home / f"{kind}-{run}", 2), home / f"{kind}-{run}.{rank}.pt")
    for kind in KINDS if runs == DONE else ():
        torch.save(answer(kind), home / f"{kind}.{rank}.pt")
    if runs == DONE:
        torch.save(troubled(rank, home), home / f"troubled.{rank}.pt")
    if runs == PARTS:
        for kind in ("vqa", *FOLLOWED):
            torch.save(stopped_in_parts(kind, home), home / f"stopped-{kind}.{rank}.pt")
            torch.save(uneven(rank, kind, home), home / f"uneven-{kind}.{rank}.pt")
    if rank == 0 and runs == DONE:
        (home / "left-alone.txt").write_text(left_alone())
    leave(0)
