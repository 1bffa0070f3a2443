"""Temperature against reduction, measured once on a few strengths, so that a budget is met without another search."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

DENSE = 0.005  # a budget below this is the dense model


@dataclass(frozen=True)
class Curve:
    """What some strengths save.

    Attributes:
        points: `(reduction, strength)` as measured, reduction rising; a strength that saves no more than a milder one
            is left out.
    """

    points: tuple[tuple[float, float], ...]

    @property
    def least(self) -> float:
        """The least reduction that was measured."""
        return self.points[0][0]

    @property
    def most(self) -> float:
        """The largest reduction that was measured."""
        return self.points[-1][0]

    def at(self, reduction: float) -> tuple[float | None, float]:
        """The strength for a budget, and what it saves by the curve; between two points it is interpolated.

        Args:
            reduction: 0 = dense. One that the curve does not reach is met as nearly as it can be.

        Returns:
            None and 0 for the dense model.
        """
        if reduction < DENSE:
            return None, 0.0
        place = bisect_left(self.points, (reduction, -math.inf))
        if place == 0:
            return self.points[0][1], self.least
        if place == len(self.points):
            return self.points[-1][1], self.most
        (low, mild), (high, strong) = self.points[place - 1 : place + 1]
        way = (reduction - low) / (high - low)
        return math.exp((1 - way) * math.log(mild) + way * math.log(strong)), reduction


def rising(measured: Sequence[tuple[float, float]]) -> Curve:
    """The curve of `(strength, reduction)` pairs: along the strengths, those that save more than all before.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("a curve needs at least one point")
    along = sorted(measured)
    if along[0][1] > along[-1][1]:  # the larger, the milder
        along.reverse()
    points: list[tuple[float, float]] = []
    for strength, reduction in along:
        if not points or reduction > points[-1][0]:
            points.append((reduction, strength))
    return Curve(tuple(points))


def measure_curve(
    measure: Callable[[float], float],
    bounds: tuple[float, float],
    *,
    grid: int = 7,
    gap: float = 0.06,
    most: int = 20,
) -> Curve:
    """Measure a grid over the strengths, even in the logarithm, then halve where neighbours differ most.

    Args:
        measure: strength -> measured reduction.
        bounds: lowest and highest strength.
        grid: points to begin with.
        gap: in reduction; neighbours nearer than this are not halved.
        most: measurements in all.
    """
    low, high = (math.log(x) for x in bounds)
    known = {x: measure(math.exp(x)) for x in (low + (high - low) * i / (grid - 1) for i in range(grid))}
    while len(known) < most:
        places = sorted(known)
        wide = max(pairwise(places), key=lambda pair: abs(known[pair[0]] - known[pair[1]]))
        if abs(known[wide[0]] - known[wide[1]]) < gap:
            break
        middle = sum(wide) / 2
        known[middle] = measure(math.exp(middle))
    return rising([(math.exp(x), reduction) for x, reduction in known.items()])
