"""Settings that a search may choose, each with its values or its range."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING

from madtp.errors import InputError

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Knob:
    """A setting's values to choose from, or its range.

    Attributes:
        values: to choose from; empty = the range.
        low, high: ends of the range, searched on a logarithmic scale.
    """

    values: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def told(self) -> list[float] | str:
        """For a file of settings."""
        return list(self.values) or f"{self.low:g}..{self.high:g}"

    def suggest(self, name: str, trial: "optuna.Trial") -> float:
        """The value that a trial is to have."""
        if len(self.values) == 1:
            return self.values[0]
        if self.values:
            return float(trial.suggest_categorical(name, self.values))
        return trial.suggest_float(name, self.low, self.high, log=True)


# What can be searched, and how far if nothing else is said.
KNOBS: dict[str, Knob] = {
    "lr": Knob(low=1e-4, high=2e-3),
    "alpha": Knob((0.0, 0.03, 0.1, 0.3, 1.0)),
    "semantic_tokens": Knob((16, 32, 64, 100, 200)),
    "straight_through": Knob((0.0, 0.1, 0.3, 0.5, 1.0)),
    "distill": Knob((0.0, 0.3, 1.0)),
    "first_block": Knob((0, 1, 2)),
}
WHOLE = {"semantic_tokens": 1, "first_block": 0}  # numbers of things, and the least there must be


def parse_space(text: str) -> dict[str, Knob]:
    """`"lr=1e-4..1e-3 alpha=0,0.1 first_block"` -> the knobs by name; one value alone fixes it.

    Raises:
        InputError: no such setting, or no such values.
    """
    space = {}
    for word in text.split():
        name, given, said = word.partition("=")
        if name not in KNOBS:
            raise InputError(f"unknown setting {name!r}", "--search", f"known are {', '.join(KNOBS)}")
        space[name] = _knob(name, said) if given else KNOBS[name]
    if not space:
        raise InputError("names no setting", "--search", "e.g. 'lr alpha=0,0.1 first_block'")
    return space


def _knob(name: str, said: str) -> Knob:
    ranged = ".." in said
    try:
        numbers = tuple(float(part) for part in said.split(".." if ranged else ","))
    except ValueError:
        numbers = ()
    low = WHOLE.get(name, 0)
    right = bool(numbers) and all(low <= n < float("inf") for n in numbers) and (name != "lr" or min(numbers) > 0)
    if name in WHOLE:
        right = right and all(n == int(n) for n in numbers) and not ranged
    if ranged:
        right = right and len(numbers) == 2 and 0 < numbers[0] < numbers[1]
    if not right:
        raise InputError(f"{name}={said}: no values", "--search", f"e.g. {name}={_example(name)}")
    return Knob(low=numbers[0], high=numbers[1]) if ranged else Knob(tuple(dict.fromkeys(numbers)))


def _example(name: str) -> str:
    knob = KNOBS[name]
    return ",".join(f"{value:g}" for value in knob.values) or f"{knob.low:g}..{knob.high:g}"


def how_many(knobs: Iterable[Knob]) -> float:
    """Settings that there are to choose from; infinitely many where there is a range."""
    return prod(len(knob.values) or inf for knob in knobs)
