"""The model behind a server: its budgets, and the batches it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from madtp.answer import answer, match, read, see
from madtp.calibration import calibrate
from madtp.cost.curve import WITHIN
from madtp.errors import InputError
from madtp.evaluate import batches
from madtp.model.config import PruneConfig
from madtp.task.registry import make_task, task_name


@dataclass(frozen=True)
class Budget:
    """A way to run the model.

    Attributes:
        pruning: its settings, with the temperature.
        reduction: measured, or read off a measured curve; None = not known.
        source: where it is from: "model" (its own, found when it was made), "dense", "curve" (the one that is stored
            with the model), or the name of the data that it was measured on.
    """

    pruning: PruneConfig
    reduction: float | None
    source: str


class Engine:
    """One model, which runs one batch at a time, each at a budget of its own.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        budgets: further ones, measured (`measure`), beside the model's own and dense; without, those of the model's
            curve, if one is stored with it.
    """

    def __init__(self, model: Any, processor: Any, budgets: Sequence[Budget] = ()) -> None:
        self.model = model.eval()
        self.task = make_task(task_name(model), processor)
        self.ranking = make_task("vqa", processor, inference="rank") if self.task.name == "vqa" else self.task
        own = model.pruning
        self.own = Budget(own, own.reduction if own.temperature else 0.0, "model")
        dense = Budget(replace(own, temperature=None, reduction=None), 0.0, "dense")
        self.budgets = [self.own] if own.temperature is None else [self.own, dense]
        self.budgets += budgets
        self.curve = None if budgets or own.curve is None else own.curve.rising
        if self.curve is not None:
            self.budgets += [self._at(saved) for saved, _ in self.curve.points]

    def _at(self, reduction: float) -> Budget:
        """Read off the curve."""
        assert self.curve is not None
        temperature = self.curve.strength(reduction)
        return Budget(replace(self.own.pruning, temperature=temperature, reduction=None), reduction, "curve")

    @property
    def clip(self) -> bool:
        """Whether it is a CLIP, which has no matching head."""
        return bool(getattr(self.task, "clip", False))

    @property
    def most(self) -> float:
        """The largest reduction that can be asked for."""
        return max(budget.reduction or 0.0 for budget in self.budgets)

    def pick(self, reduction: float | None) -> Budget:
        """The mildest budget that saves as much as asked; None = the model's own.

        What is known is taken where it saves no more than a hundredth too much; else the temperature is read off the
        curve, for the next whole hundredth, so that requests of like budgets run together. Without a curve only what
        was measured is there to choose from.

        Raises:
            InputError: none saves as much.
        """
        if reduction is None:
            return self.own
        known = [one for one in self.budgets if one.reduction is not None and one.reduction >= reduction - WITHIN]
        if not known:
            raise InputError(
                f"{reduction:g} is more than this server has measured", "reduction", f"at most {self.most:.3f}"
            )
        mildest = min(known, key=lambda one: max(0.0, one.reduction or 0.0))  # of equals, the first
        if self.curve is None or mildest.reduction is None or mildest.reduction <= reduction + 2 * WITHIN:
            return mildest
        whole = min(max(math.ceil(100 * reduction - 1e-9) / 100, self.curve.least), self.curve.most)
        return self._at(whole) if whole < mildest.reduction else mildest

    def run(self, key: tuple[Any, ...], units: list[Any]) -> Sequence[Any]:
        """A batch; called in one thread.

        Args:
            key: what is done, and at which budget: ``("answer", b, choices)`` of items, ``("see", b)`` of
                pixels, ``("read", b)`` of texts, ``("match", b)`` of pictures seen, each with its texts.
            units: as many as there are.
        """
        what, budget, *rest = key
        self.model.pruning = budget.pruning
        if what == "answer":
            (choices,) = rest
            return answer(self.model, self.ranking if choices else self.task, units, choices)
        if what == "see":
            return see(self.model, units)
        if what == "read":
            return read(self.model, self.task, units)
        scores = iter(match(self.model, self.task, [(seen, text) for seen, texts in units for text in texts]))
        return [[next(scores) for _ in texts] for _, texts in units]


def measure(model: Any, processor: Any, data: Any, reductions: Sequence[float], batch_size: int = 32) -> list[Budget]:
    """A budget for each reduction, found as `madtp calibrate` does; the model's settings come back as they were.

    Raises:
        InputError: one cannot be reached.
    """
    task, before, found = make_task(task_name(model), processor), model.pruning, []
    ready = list(batches(task, data, batch_size, model.device))
    try:
        for reduction in reductions:
            calibrate(model, task, ready, reduction)
            found.append(Budget(model.pruning, model.pruning.reduction, f"{data.name} {data.split}"))
    finally:
        model.pruning = before
    return found
