"""One model in the hand: an example answered at any budget, with what it cost and what was pruned."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from madtp.cost.curve import Curve, measure_curve
from madtp.data.sample import Data, is_text
from madtp.errors import InputError
from madtp.evaluate import batches, evaluating, measure_reduction, to_device
from madtp.page.confidence import confidence
from madtp.prune import METHODS
from madtp.report.seen import Tower
from madtp.task.base import Task, cost
from madtp.view import towers_of

MOST = 0.85  # of the slider
RUNS, ENOUGH = 5, 0.4  # an answer is timed so often, or so many seconds long


@dataclass(frozen=True)
class Answer:
    """One example at one budget.

    Attributes:
        words: what the model says.
        confidence: see `madtp.page.confidence`; None = it has none.
        asked: the budget: share of the GFLOPs to save, 0 = dense.
        expected: what the curve says the temperature saves on the data it was measured on.
        temperature: the method's knob; None = dense.
        gflops, gflops_dense: of this example, counted from what ran.
        milliseconds: wall time of the whole answer, median of `runs`.
        runs: how often it was timed.
        towers: what each block left.
    """

    words: str
    confidence: float | None
    asked: float
    expected: float
    temperature: float | None
    gflops: float
    gflops_dense: float
    milliseconds: float
    runs: int
    towers: tuple[Tower, ...]

    @property
    def reduction(self) -> float:
        """Measured on this example."""
        return 1 - self.gflops / self.gflops_dense


class Explorer:
    """A model with its curve. One example runs at a time: the budget is a setting of the model.

    Args:
        name: of the model, for a reader.
        model: on its device, in evaluation mode; its own settings are not kept.
        task: of the model.
        measured_on: where the curve is from.

    Raises:
        InputError: the model's method takes smaller pictures, or weights out, instead of pruning tokens.
    """

    def __init__(self, name: str, model: Any, task: Task, measured_on: Data[Any]) -> None:
        method = METHODS[model.pruning.method]
        if method.pixels or method.weights:
            what = "takes smaller pictures" if method.pixels else "takes weights out"
            raise InputError(f"{what} and prunes no tokens, so there is nothing to see", name, "use another")
        self.name, self.model, self.task, self.data = name, model, task, measured_on
        self.curve: Curve | None = None
        self._lock = threading.Lock()

    @property
    def blocks(self) -> int:
        """Blocks of the image tower."""
        return int(self.model.config.vision_config.num_hidden_layers)

    @property
    def pictures(self) -> int:
        """Pictures an example can have."""
        return 2 if self.task.name == "reasoning" else 1

    def measure(self, advance: Callable[[int, str], None], batch_size: int = 16) -> Curve:
        """Measure the curve: once, before the first budget is asked for.

        Args:
            advance: told of every temperature and what it saved.
            batch_size: pictures a batch.
        """
        ready = list(batches(self.task, self.data, batch_size, self.model.device))

        def saved(strength: float) -> float:
            self.model.temperature = strength
            value = measure_reduction(self.model, self.task, ready)
            advance(1, f"{strength:.3g} saves {value:.3f}")
            return value

        with self._lock:
            self.curve = measure_curve(saved, METHODS[self.model.pruning.method].bounds)
        return self.curve

    def answer(self, images: Sequence[str], text: str, budget: float) -> Answer:
        """An example at a budget.

        Args:
            images: files.
            text: question, statement or caption; not looked at in captioning.
            budget: share of the GFLOPs to save, 0 = dense.

        Raises:
            InputError: a file is no picture, or the text is missing.
        """
        assert self.curve is not None, "measure first"
        if self.task.name != "caption" and not (text or "").strip():
            raise InputError(f"{self.task.text_name} need a text: type one")
        if not is_text(text or ""):
            raise InputError("the text is not UTF-8: type it anew")
        if not images:
            raise InputError("choose a picture first, or click an example")
        item = self.task.example(list(images), text or "")
        batch = to_device(self.task.collate([item]), self.model.device)
        temperature, expected = self.curve.at(budget)
        with self._lock, evaluating(self.model):
            self.model.pruning = replace(self.model.pruning, temperature=temperature)
            (prediction,), encoded = self.task.predict(self.model, batch, provenance=True)
            run, full = cost(self.model, encoded.trace)
            sure = confidence(self.model, self.task, batch, prediction, encoded)
            times = self._times(lambda: self.task.predict(self.model, batch))
        ids = None
        if encoded.trace.tower("text"):
            ids = batch["input_ids"][0][batch["attention_mask"][0].bool()].cpu()
        return Answer(
            self.task.words_for(prediction)[0],
            sure,
            budget,
            expected,
            temperature,
            float(run.total),
            float(full.total),
            1000 * median(times),
            len(times),
            towers_of(self.task, encoded.trace, item, ids),
        )

    @staticmethod
    def _times(work: Callable[[], object]) -> list[float]:
        times: list[float] = []
        while len(times) < RUNS and sum(times) < ENOUGH:
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return times
