"""The temperature that meets a reduction, found by measuring on data."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from madtp.cost.budget import Controller, Found, OutOfReach, find_from_sample, find_strength
from madtp.cost.curve import fill
from madtp.cost.flops import count_dense, count_least, reduction
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.evaluate import evaluating, measure_reduction
from madtp.model.config import PruneConfig
from madtp.model.curve import BudgetCurve
from madtp.model.shape import shape_of
from madtp.prune import METHODS
from madtp.task.base import Batch, Task

logger = logging.getLogger(__name__)

GAP, MOST_BETWEEN = 0.08, 16  # of a curve: reduction between neighbours, and measurements to come to that

Known = dict[int, dict[float, float]]
"""What is measured already: by number of batches, strength -> reduction."""


def check_reach(model: Any, task: Task, some: Sequence[Batch], target: float) -> None:
    """Refuse a reduction that no temperature could meet: more than with two content tokens after each first block.

    Raises:
        OutOfReach: says what can be had at the very most.
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
        raise OutOfReach(said, "--reduction", f"ask for less than {math.floor(most * 100) / 100:g}")


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
    known: Known | None = None,
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
        known: measured on these batches before, and not again; what is measured now is added.

    Raises:
        InputError: the target cannot be reached; says what can. After any error the settings are as before.
    """
    before = model.pruning
    method = METHODS[before.method]

    def on(part: Sequence[Batch]) -> Callable[[float], float]:
        return _measuring(model, task, part, {} if known is None else known.setdefault(len(part), {}), tried)

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
        OutOfReach: a reduction that no temperature could reach.
        InputError: several of a method that takes weights out.
    """
    method = METHODS[model.pruning.method]
    if method.weights and reductions:
        _check_single(method.name, reductions)
        found = calibrate(model, task, some, reductions[0], mildest=True)
        return [Controller(found.strength, reductions[0], method.bounds, ramp=ramp, full=found.strength)]
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
        controllers.append(Controller(found.strength, target, method.bounds, start=start, ramp=ramp))
    return controllers


def _check_single(method: str, targets: Sequence[float]) -> None:
    if len(targets) != 1 or not targets[0]:
        raise InputError(f"{method} takes weights out for good, which serves one budget", "--reduction", "give one")


def _measuring(
    model: Any,
    task: Task,
    part: Sequence[Batch],
    values: dict[float, float],
    tried: Callable[[float, float], None] | None,
) -> Callable[[float], float]:
    """Strength -> reduction measured on these batches, each once."""

    def measure(strength: float) -> float:
        if strength not in values:
            model.temperature = strength
            values[strength] = measure_reduction(model, task, part)
            if tried is not None:
                tried(strength, values[strength])
        return values[strength]

    return measure


def calibrate_all(
    model: Any,
    task: Task,
    some: Sequence[Batch],
    targets: Sequence[float],
    data: Data[Any],
    *,
    near: float | None = None,
    lenient: bool = False,
    tried: Callable[[float, float], None] | None = None,
) -> Found:
    """`calibrate` for each target in turn, and store all that was measured with the model, as its curve.

    Between the budgets more is measured, until neighbours differ by less than `GAP`. A single target makes no curve.

    Args:
        model, task, some, tried: as for `calibrate`; where a model cannot save as little, its mildest is taken.
        targets: reductions in (0, 1); the model is left at the last.
        data: where the batches are from, for the curve's account.
        near: of a single target, look around this temperature first.
        lenient: one that cannot be reached, unless it is the last, is left out with a warning.

    Raises:
        InputError: one cannot be reached. After any error the settings are as before.
    """
    if METHODS[model.pruning.method].weights:
        _check_single(model.pruning.method, targets)
    if len(targets) == 1:
        return calibrate(model, task, some, targets[0], near=near, mildest=True, tried=tried)
    before = model.pruning
    known: Known = {}
    reached: list[Found] = []
    try:
        for i, target in enumerate(targets):
            try:
                reached.append(calibrate(model, task, some, target, mildest=True, tried=tried, known=known))
            except OutOfReach as error:
                if not lenient or i + 1 == len(targets):
                    raise
                logger.warning("left out of the curve: %s", error)
        last, whole = model.pruning, known[len(some)]
        ends = min(found.strength for found in reached), max(found.strength for found in reached)
        between = {strength: value for strength, value in whole.items() if ends[0] <= strength <= ends[1]}
        fill(_measuring(model, task, some, whole, tried), between, gap=GAP, most=MOST_BETWEEN)
    except BaseException:
        model.pruning = before
        raise
    curve = BudgetCurve(tuple(sorted(whole.items())), f"{data.name} {data.split}", data.n_texts)
    model.pruning = replace(last, curve=curve)
    return reached[-1]
