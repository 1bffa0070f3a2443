"""A run's checkpoint: all that a resumed run needs to go on as if it had never stopped."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from madtp.cost.budget import Controller
from madtp.errors import InputError
from madtp.files import atomic_path, atomic_write

if TYPE_CHECKING:
    from madtp.train import Trainer

STATE, LOG = "checkpoint.pt", "log.jsonl"


def save_state(run: "Trainer") -> None:
    """Write the checkpoint into the run's folder, whole or not at all.

    Raises:
        InputError: the disk is full.
    """
    state = {
        "config": {**asdict(run.config), **run.source},
        "step": run.step,
        "model": run.bare.state_dict(),
        "helper": None if run.helper is None else run.helper.state_dict(),
        "pruning": run.bare.pruning.to_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "controllers": [None if controller is None else asdict(controller) for controller in run.controllers],
        "best": run.best,
        # of the batches since the last step, where several make one
        "gradients": {name: p.grad for name, p in run.named_parameters() if p.grad is not None},
    }
    with atomic_path(run.out / STATE) as path:
        try:
            torch.save(state, path)
        except RuntimeError as error:  # what torch makes of a full disk
            raise InputError("cannot write the checkpoint", run.out / STATE, "free the disk, --resume") from error


def load_state(run: "Trainer") -> None:
    """Set the run to where its folder's checkpoint was written.

    Raises:
        InputError: there is none, it is no checkpoint, or it is of a run with other settings or another model.
    """
    path = run.out / STATE
    for part in run.out.glob(f".{STATE}.*.part"):  # of a run that was killed while it wrote
        part.unlink(missing_ok=True)
    if not path.is_file():
        raise InputError("nothing to resume: no checkpoint", path, "start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError("cut short or not a checkpoint", path, "start again with --overwrite") from error
    if not isinstance(state, dict) or not {"config", "step", "optimizer", "gradients"} <= state.keys():
        raise InputError("not a checkpoint of this program", path, "start again with --overwrite")
    mine, theirs = {**asdict(run.config), **run.source}, state["config"]
    theirs.setdefault("processes", 1)
    other = sorted(key for key in mine if mine[key] != theirs.get(key) and key != "save_every")
    if other:
        said = ", ".join(f"{key} {theirs.get(key)!r} -> {mine[key]!r}" for key in other)
        raise InputError(f"settings differ from the checkpoint's: {said}", path, "resume with the same settings")
    try:
        run.bare.load_state_dict(state["model"])
        if run.helper is not None:
            run.helper.load_state_dict(state["helper"])
    except RuntimeError as error:
        raise InputError("is of a model of other sizes", path, "resume with the same settings") from error
    run.bare.config.madtp = state["pruning"]
    run.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    run.controllers = [None if some is None else Controller(**some) for some in state["controllers"]]
    run.step, run.best = state["step"], state["best"]
    run.accelerator.step = run.step  # where in an accumulated step
    for name, parameter in run.named_parameters():
        if name in state["gradients"]:
            parameter.grad = state["gradients"][name].to(parameter.device)
    log = run.out / LOG
    if log.is_file():  # lines past the checkpoint will be written again
        lines = log.read_text(encoding="utf-8").splitlines()
        atomic_write(log, "".join(f"{line}\n" for line in lines if _stays(line, run.step)))


def _stays(line: str, step: int) -> bool:
    """Whether a line of the log is of a step that will not be done again; one cut short by a kill is not."""
    try:
        entry: Any = json.loads(line)
        return bool(entry["step"] <= step)
    except (ValueError, KeyError, TypeError):
        return False
