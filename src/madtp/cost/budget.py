"""Finding the temperature that meets a compute budget, and holding it there while weights change."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from madtp.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        strength: the method's knob (temperature) that came closest.
        reduction: measured there.
        tried: every `(strength, measured reduction)`, in order of trial.
    """

    strength: float
    reduction: float
    tried: tuple[tuple[float, float], ...]


class OutOfReach(InputError):
    """No strength meets the target; of those that were tried, if any were, `nearest` came closest."""

    nearest: Found


def check_reduction(reduction: float) -> None:
    """Raises InputError unless 0 < reduction < 1."""
    if not 0 < reduction < 1:
        fix = "use a number above 0 and below 1, e.g. 0.5 for half of the GFLOPs"
        raise InputError(f"{reduction:g} is impossible", "--reduction", fix)


def find_strength(
    measure: Callable[[float], float],
    target: float,
    bounds: tuple[float, float],
    *,
    tolerance: float = 0.003,
    grid: int = 7,
    refine: int = 10,
    mildest: bool = False,
) -> Found:
    """The strength whose measured reduction meets `target`; nothing is assumed about monotony.

    A grid over `bounds`, even in the logarithm, finds every pair of neighbours that brackets the target; the narrowest
    is halved until the measurement is within `tolerance`.

    Args:
        measure: strength -> measured reduction.
        target: in (0, 1).
        bounds: lowest and highest strength.
        tolerance: absolute, on the reduction.
        grid: points of the grid.
        refine: most halvings.
        mildest: where every tried strength saves more than `target`, take the one that saves least, and say so in a
            warning: it is within the budget.

    Raises:
        InputError: the target is out of (0, 1).
        OutOfReach: it is out of what any tried strength reaches; says what can be had.
    """
    check_reduction(target)
    low, high = (math.log(x) for x in bounds)
    tried: dict[float, float] = {}

    def value(x: float) -> float:
        if x not in tried:
            tried[x] = measure(math.exp(x))
        return tried[x]

    def close() -> bool:
        return any(abs(r - target) <= tolerance for r in tried.values())

    points = [low + (high - low) * i / (grid - 1) for i in range(grid)]
    for x in points:
        value(x)
        if close():
            break
    brackets = [
        (a, b) for a, b in pairwise(points) if a in tried and b in tried
        and (tried[a] - target) * (tried[b] - target) <= 0
    ]  # fmt: skip
    if not close() and not brackets:
        most, least = max(tried.values()), min(tried.values())
        closest = min(tried, key=lambda x: abs(tried[x] - target))
        nearest = Found(math.exp(closest), tried[closest], tuple((math.exp(x), r) for x, r in tried.items()))
        if mildest and least > target:
            logger.warning("asked to save %g, the least this model can: %.3f", target, least)
            return nearest
        side = f"above the most this model reaches, {most:.3f}" if target > most else f"below its least, {least:.3f}"
        fix = f"ask for at most {math.floor(most * 100) / 100:g}" if most >= 0.01 else "train the model first"
        error = OutOfReach(f"{target:g} is {side}", "--reduction", fix if target > most else "use the dense model")
        error.nearest = nearest
        raise error
    if not close():
        a, b = min(brackets, key=lambda pair: abs(tried[pair[0]] - tried[pair[1]]))
        for _ in range(refine):
            middle = (a + b) / 2
            value(middle)
            if close():
                break
            a, b = (a, middle) if (tried[a] - target) * (tried[middle] - target) <= 0 else (middle, b)
    best = min(tried, key=lambda x: abs(tried[x] - target))
    return Found(math.exp(best), tried[best], tuple((math.exp(x), r) for x, r in tried.items()))


def find_from_sample(
    sample: Callable[[float], float],
    measure: Callable[[float], float],
    target: float,
    bounds: tuple[float, float],
    *,
    tolerance: float = 0.003,
    grid: int = 7,
    rounds: int = 6,
) -> Found | None:
    """As `find_strength`, searching on a sample that is cheap to measure; what was found there is measured in full.

    Sample and whole differ by about the same at like strengths, so where the whole misses, the next is read off
    the sample's curve, moved by as much; off the whole's own, once it has been measured on both sides of the target.
    None if that does not lead there in a few rounds.

    Args:
        sample: strength -> reduction measured on part of the data.
        measure: strength -> reduction measured on all of it.
        target, bounds, tolerance, grid: as for `find_strength`.
        rounds: most measurements in full.
    """
    known: dict[float, float] = {}
    whole: dict[float, float] = {}

    def cached(strength: float) -> float:
        if strength not in known:
            known[strength] = sample(strength)
        return known[strength]

    try:
        strength: float | None = find_strength(cached, target, bounds, tolerance=tolerance, grid=grid).strength
    except OutOfReach:
        return None
    while strength is not None and len(whole) < rounds:
        value = whole[strength] = measure(strength)
        if abs(value - target) <= tolerance:
            return Found(strength, value, tuple(whole.items()))
        moved = cached(strength) + target - value
        strength = _crossing(whole, target, strength) or _crossing(known, moved, strength)
    return None


def _crossing(curve: Mapping[float, float], target: float, near: float) -> float | None:
    """Where a measured curve, linear in log(strength) between its points, meets `target`; nearest to `near`."""
    places = []
    for (a, low), (b, high) in pairwise(sorted(curve.items())):
        if min(low, high) <= target <= max(low, high) and low != high:
            places.append(a * (b / a) ** ((target - low) / (high - low)))
    return min(places, key=lambda place: abs(math.log(place / near)), default=None)


@dataclass
class Controller:
    """Steers the strength in closed loop while the weights change: one small step a batch, from that batch's own count.

    Integral control of `log(strength)` on the reduction that each training batch's trace reports for free. The target
    rises from `start` to `target` over `ramp` steps, so that the model is not cut to pieces at once.

    Attributes:
        strength: current value of the knob.
        target: reduction to hold at the end.
        bounds: of the strength.
        start: target of the first step.
        ramp: steps over which the target rises.
        gain: change of log(strength) per unit of error and step.
        step: steps taken.
        smooth: running mean of the measured reduction (for logs).
        full: the strength that meets `target`, where it was found beforehand and no batch changes it: then nothing is
            steered, the strength grows with the goal. None = steered.
    """

    strength: float
    target: float
    bounds: tuple[float, float]
    start: float = 0.0
    ramp: int = 0
    gain: float = 0.3
    step: int = 0
    smooth: float | None = field(default=None)
    full: float | None = None

    def __post_init__(self) -> None:
        if self.full is not None:
            self.strength = self._due(self.full)

    def _due(self, full: float) -> float:
        return min(max(full * self.goal() / self.target, self.bounds[0]), self.bounds[1])

    def goal(self) -> float:
        """The target of the current step."""
        if self.step >= self.ramp:
            return self.target
        return self.start + (self.target - self.start) * self.step / self.ramp

    def update(self, measured: float) -> float:
        """Take in one batch's measured reduction; returns the strength for the next batch."""
        if self.full is None:
            change = self.gain * (self.goal() - measured)
            log = math.log(self.strength) + max(-0.2, min(0.2, change))
            self.strength = min(max(math.exp(log), self.bounds[0]), self.bounds[1])
        self.smooth = measured if self.smooth is None else 0.95 * self.smooth + 0.05 * measured
        self.step += 1
        if self.full is not None:
            self.strength = self._due(self.full)
        return self.strength
