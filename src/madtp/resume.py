"""What is in a run's checkpoint: all that a resumed run needs to go on as if it had never stopped."""

import json
import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from madtp import checkpoints
from madtp.cost.budget import Controller
from madtp.errors import InputError
from madtp.files import atomic_write
from madtp.task.gather import largest, mean_of, together
from madtp.task.sharded import (
    gather_helper,
    gather_optimizer,
    gather_weights,
    is_part,
    part_of,
    scatter_helper,
    scatter_optimizer,
    scatter_weights,
    whole,
)

if TYPE_CHECKING:
    from madtp.train import Trainer

LOG = "log.jsonl"
FREE = {
    "save_every",
    "keep",
    "workers",
    "bad_steps",
    "gradient_checkpointing",
}  # settings that a resumed run may have otherwise


def random_states() -> dict[str, Any]:
    """Every random state of this process, in types that a checkpoint may hold."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 others may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_states(states: Any) -> None:
    """Set them. A checkpoint of an earlier version has torch's alone."""
    if not isinstance(states, dict):
        torch.set_rng_state(states)
        return
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))


def save_state(run: "Trainer") -> None:
    """Write the checkpoint into the run's folder, whole or not at all: the first process writes for all that call.

    Raises:
        InputError: the disk is full.
    """
    scaler, several = run.accelerator.scaler, run.place[1] > 1
    drawn, ids = together([random_states()]), together([run.bad.ids])
    gradients = {name: whole(p.grad) for name, p in run.named_parameters() if p.grad is not None}
    optimizer, helper = gather_optimizer(run.optimizer), gather_helper(run.helper)
    gather_weights(run.bare, run.trained)
    if not run.accelerator.is_main_process:
        return
    state = {
        "config": {**asdict(run.config), **run.source},
        "step": run.step,
        "model": run.bare.state_dict(),
        "helper": helper,
        "pruning": run.bare.pruning.to_dict(),
        "optimizer": optimizer,
        "scaler": None if scaler is None else scaler.state_dict(),
        "random": drawn if several else drawn[0],  # of every process
        "controllers": [None if controller is None else asdict(controller) for controller in run.controllers],
        "best": run.best,
        "due": run.due,
        "seconds": run.seconds,
        "bad": {**asdict(run.bad), "ids": ids if several else ids[0]},  # of every process
        "accumulated": run.accelerator.step,
        "gradients": gradients,
    }
    checkpoints.write(run.out, state, run.config.keep)


def may_save(run: "Trainer") -> bool:
    """Whether the first process has all there is to save; amid a step of several batches each has its own gradients."""
    return run.place[1] == 1 or run.accelerator.sync_gradients


def level(run: "Trainer") -> None:
    """At the end of an epoch, where `may_save` does not hold: all processes' gradients become their mean.

    It is what the step takes, and an epoch's end can be saved then. A run that nobody stops does it too.
    """
    if may_save(run):
        return
    trained = run.named_parameters()
    there = largest([p.grad is not None for _, p in trained], run.accelerator.device)  # anywhere
    for (_, p), some in zip(trained, there, strict=True):
        if some and not is_part(p):  # the gradient of what is sharded is the mean already
            p.grad = mean_of(p.new_zeros(p.shape) if p.grad is None else p.grad)


def load_state(run: "Trainer") -> None:
    """Set the run to where its folder's checkpoint was written.

    Raises:
        InputError: there is none that is whole, or it is of a run with other settings or another model.
    """
    path = run.out / checkpoints.STATE
    state = checkpoints.read(run.out)
    mine, theirs = {**asdict(run.config), **run.source}, state["config"]
    theirs |= {"processes": theirs.get("processes", 1), "fsdp": theirs.get("fsdp", False)}
    other = sorted(key for key in mine if mine[key] != theirs.get(key) and key not in FREE)
    if other:
        said = ", ".join(f"{key} {theirs.get(key)!r} -> {mine[key]!r}" for key in other)
        raise InputError(f"settings differ from the checkpoint's: {said}", path, "resume with the same settings")
    try:
        run.bare.load_state_dict(state["model"])
        scatter_weights(run.bare, run.trained)
        if run.helper is not None:
            run.helper.load_state_dict(scatter_helper(run.helper, state["helper"]))
    except RuntimeError as error:
        raise InputError("is of a model of other sizes", path, "resume with the same settings") from error
    run.bare.config.madtp = state["pruning"]
    run.optimizer.load_state_dict(scatter_optimizer(run.optimizer, state["optimizer"]))
    if run.accelerator.scaler is not None and state.get("scaler"):
        run.accelerator.scaler.load_state_dict(state["scaler"])
    rank, drawn = run.place[0], state["random"]
    set_random_states(drawn[rank] if isinstance(drawn, list) else drawn)
    run.controllers = [None if some is None else Controller(**some) for some in state["controllers"]]
    run.step, run.best, run.due = state["step"], state["best"], state.get("due", False)
    run.spent = state.get("seconds", 0.0)
    bad = dict(state.get("bad", {}))
    if run.place[1] > 1 and bad.get("ids"):
        bad["ids"] = bad["ids"][rank]
    run.bad = type(run.bad)(**bad)
    run.accelerator.step = state.get("accumulated", run.step)  # batches so far: where in a step of several
    for name, parameter in run.named_parameters():
        if name in state["gradients"]:
            parameter.grad = part_of(state["gradients"][name], parameter.detach())
    log = run.out / LOG
    if log.is_file() and not rank:  # lines past the checkpoint will be written again
        lines = log.read_text(encoding="utf-8").splitlines()
        atomic_write(log, "".join(f"{line}\n" for line in lines if _stays(line, run.step, run.due)))


def _stays(line: str, step: int, due: bool) -> bool:
    """Whether a line of the log is of work that will not be done again; one cut short by a kill is not."""
    try:
        entry: Any = json.loads(line)
        return bool(entry["step"] < step or (entry["step"] == step and not (due and "val" in entry)))
    except (ValueError, KeyError, TypeError):
        return False
