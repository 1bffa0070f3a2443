"""Temperature against reduction, measured once on a few strengths, so that a budget is met without another search."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

DENSE = 0.005  # a budget below this is the dense model
WITHIN = 0.005  # by which a measured reduction may miss the one that is asked for


@dataclass(frozen=True)
class Curve:
    """What some strengths save.

    Attributes:
        points: `(reduction, strength)` as measured, reduction rising; a strength that saves as much as a stronger one
            is left out, so that where it was measured, what is read off saves as much as it says.
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

    def strength(self, reduction: float) -> float:
        """The strength for a reduction, linear in its logarithm between two points; an end's beyond that."""
        place = bisect_left(self.points, (reduction, -math.inf))
        if place == 0:
            return self.points[0][1]
        if place == len(self.points):
            return self.points[-1][1]
        (low, mild), (high, strong) = self.points[place - 1 : place + 1]
        if reduction == high:
            return strong
        way = (reduction - low) / (high - low)
        return math.exp((1 - way) * math.log(mild) + way * math.log(strong))

    def at(self, reduction: float) -> tuple[float | None, float]:
        """The strength for a budget, and what it saves by the curve.

        Args:
            reduction: 0 = dense. One that the curve does not reach is met as nearly as it can be.

        Returns:
            None and 0 for the dense model.
        """
        if reduction < DENSE:
            return None, 0.0
        return self.strength(reduction), min(max(reduction, self.least), self.most)


def rising(measured: Sequence[tuple[float, float]]) -> Curve:
    """The curve of `(strength, reduction)` pairs: along the strengths, those that save less than all stronger ones.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("a curve needs at least one point")
    along = sorted(measured)
    if along[0][1] > along[-1][1]:  # the larger, the milder
        along.reverse()
    points: list[tuple[float, float]] = []
    for strength, reduction in reversed(along):
        if points and reduction == points[-1][0]:
            points.pop()  # of those that save the same, the mildest
        if not points or reduction < points[-1][0]:
            points.append((reduction, strength))
    return Curve(tuple(reversed(points)))


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
    known = {x: measure(x) for x in (math.exp(low + (high - low) * i / (grid - 1)) for i in range(grid))}
    fill(measure, known, gap=gap, most=most - grid)
    return rising(list(known.items()))


def fill(measure: Callable[[float], float], known: dict[float, float], *, gap: float, most: int) -> None:
    """Measure more where neighbours among the known strengths differ most, half of the way in the logarithm.

    Args:
        measure: strength -> measured reduction.
        known: strength -> reduction; gets what is measured.
        gap: in reduction; neighbours nearer than this are not halved.
        most: measurements.
    """
    for _ in range(most if len(known) > 1 else 0):
        a, b = max(pairwise(sorted(known)), key=lambda pair: abs(known[pair[0]] - known[pair[1]]))
        if abs(known[a] - known[b]) < gap:
            break
        known[math.sqrt(a * b)] = measure(math.sqrt(a * b))
