"""`config.madtp.curve`: what some temperatures of a model save, measured once and stored with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from madtp.cost.curve import WITHIN, Curve, rising
from madtp.errors import InputError

MOST_POINTS = 1000  # of a curve in a config.json


@dataclass(frozen=True)
class BudgetCurve:
    """What some temperatures save, as measured. It holds for the weights and the method that it was measured with.

    Attributes:
        points: `(temperature, reduction)`, temperatures rising; for comparators the temperature is their own knob.
        data: what it was measured on, e.g. "scenes val".
        n: texts of it.
    """

    points: tuple[tuple[float, float], ...]
    data: str
    n: int

    def __post_init__(self) -> None:
        if not 0 < len(self.points) <= MOST_POINTS:
            raise InputError(f"{len(self.points)} points", "madtp.curve", f"use 1 to {MOST_POINTS}")
        for temperature, reduction in self.points:
            if not 0 < temperature < math.inf or not -math.inf < reduction < 1:
                raise InputError(f"{(temperature, reduction)} is no temperature and its reduction", "madtp.curve")

    @classmethod
    def of(cls, value: "BudgetCurve | Mapping[str, Any]") -> "BudgetCurve":
        """From what a config file holds. Raises InputError for anything else than a curve."""
        if isinstance(value, BudgetCurve):
            return value
        wrong = InputError("is no curve of points, data and n", "madtp.curve", "see docs/json.md")
        if not isinstance(value, Mapping) or set(value) != {"points", "data", "n"}:
            raise wrong
        if not isinstance(value["data"], str) or type(value["n"]) is not int:
            raise wrong
        try:
            points = tuple(sorted((float(temperature), float(saved)) for temperature, saved in value["points"]))
        except (TypeError, ValueError, OverflowError) as error:
            raise wrong from error
        return cls(points, value["data"], value["n"])

    def to_dict(self) -> dict[str, Any]:
        """As a config file holds it."""
        return {"points": [list(point) for point in self.points], "data": self.data, "n": self.n}

    @property
    def rising(self) -> Curve:
        """The part that temperatures are read off (see `madtp.cost.curve.rising`)."""
        return rising(self.points)

    def read(self, reduction: float) -> tuple[float, float | None]:
        """The temperature for a budget, and what was measured there; None = read off between two measured points.

        Raises:
            InputError: the budget is outside of what was measured; says what was.
        """
        curve = self.rising
        if not curve.least - WITHIN <= reduction <= curve.most + WITHIN:
            said = f"{reduction:g} is outside of the measured range, {curve.least:.3f} to {curve.most:.3f}"
            raise InputError(said, "reduction", "ask for one within, or measure more: `madtp calibrate --reduction`")
        inside = min(max(reduction, curve.least), curve.most)
        measured = next((saved for saved, _ in curve.points if saved == inside), None)
        return curve.strength(inside), measured
