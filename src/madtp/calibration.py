"""The temperature that meets a reduction, found by measuring on data."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from madtp.cost.budget import Controller, Found, OutOfReach, find_from_sample, find_strength
from madtp.cost.flops import count_dense, count_least, reduction
from madtp.errors import InputError
from madtp.evaluate import evaluating, measure_reduction
from madtp.model.config import PruneConfig
from madtp.model.shape import shape_of
from madtp.prune import METHODS
from madtp.task.base import Batch, Task


def check_reach(model: Any, task: Task, some: Sequence[Batch], target: float) -> None:
    """Refuse a reduction that no temperature could meet: more than with two content tokens after each first block.

    Raises:
        InputError: says what can be had at the very most.
    """
    before, least, full = model.pruning, [], []
    try:
        model.temperature = None
        with evaluating(model):
            for batch in some:
                trace = task.expect(task.trace(model, batch), batch)
                least.append(count_least(shape_of(model), trace).total)
                full.append(count_dense(shape_of(model), trace).total)
    finally:
        model.pruning = before
    most = reduction(torch.cat(least), torch.cat(full))
    if target > most:
        said = f"{target:g} is impossible: two tokens from each tower's first block on would save {most:.3f}"
        raise InputError(said, "--reduction", f"ask for less than {math.floor(most * 100) / 100:g}")


def calibrate(
    model: Any,
    task: Task,
    some: Sequence[Batch],
    target: float,
    *,
    near: float | None = None,
    tolerance: float = 0.003,
    mildest: bool = False,
    tried: Callable[[float, float], None] | None = None,
) -> Found:
    """Set the model's temperature to the one whose measured reduction on `some` batches meets `target`.

    Of many batches an eighth is searched on, and all of them confirm what was found.

    Args:
        model, task: as for `evaluate`; the model's temperature and `pruning.reduction` are set.
        some: batches to measure on.
        target: reduction in (0, 1).
        near: look around this temperature first.
        tolerance: absolute, on the reduction.
        mildest: see `find_strength`.
        tried: told every temperature and what it measured, for a progress bar.

    Raises:
        InputError: the target cannot be reached; says what can. After any error the settings are as before.
    """
    before = model.pruning
    method = METHODS[before.method]

    def on(part: Sequence[Batch]) -> Callable[[float], float]:
        def measure(strength: float) -> float:
            model.temperature = strength
            value = measure_reduction(model, task, part)
            if tried is not None:
                tried(strength, value)
            return value

        return measure

    low, high = method.bounds
    measure, sample = on(some), on(some[: len(some) // 8]) if len(some) >= 8 else None
    try:
        found = None
        if near is not None:
            try:
                close = (max(low, near / 3), min(high, near * 3))
                if sample is not None:
                    found = find_from_sample(sample, measure, target, close, tolerance=tolerance, grid=3)
                found = found or find_strength(measure, target, close, tolerance=tolerance, grid=3)
            except OutOfReach:
                found = None
        elif sample is not None:
            found = find_from_sample(sample, measure, target, (low, high), tolerance=tolerance)
        if found is None:
            found = find_strength(measure, target, (low, high), tolerance=tolerance, mildest=mildest)
    except BaseException:  # an interrupt too
        model.pruning = before
        raise
    model.pruning = PruneConfig(**{**before.to_dict(), "temperature": found.strength, "reduction": found.reduction})
    return found


def first_controllers(
    model: Any, task: Task, some: Sequence[Batch], reductions: Sequence[float], ramp: int
) -> list[Controller | None]:
    """What steers the temperature to each budget, from a mild one that is met before any training; None = dense.

    Args:
        model, task, some: as for `calibrate`.
        reductions: the budgets; 0 = dense.
        ramp: steps over which a target rises to its budget.

    Raises:
        InputError: a reduction that no temperature could reach.
    """
    if reductions:
        check_reach(model, task, some[:1], max(reductions))
    controllers: list[Controller | None] = []
    for target in reductions:
        if target == 0:
            controllers.append(None)
            continue
        start = min(target, 0.3)
        try:
            found = calibrate(model, task, some, start, tolerance=0.02)
        except OutOfReach:  # the mildest this model can do is more than that
            start = target
            try:
                found = calibrate(model, task, some, target, tolerance=0.02)
            except OutOfReach as error:  # training may bring it within
                found = error.nearest
        bounds = METHODS[model.pruning.method].bounds
        controllers.append(Controller(found.strength, target, bounds, start=start, ramp=ramp))
    return controllers
