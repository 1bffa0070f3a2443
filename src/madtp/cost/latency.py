"""Wall time of two ways to do the same work, in turn, so that a machine's drift falls on both alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Paired:
    """Timings of a baseline and a contender, pair by pair.

    Attributes:
        baseline, contender: seconds of each run.
    """

    baseline: tuple[float, ...]
    contender: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Median over pairs of baseline / contender; above 1 = the contender is faster."""
        return median(b / c for b, c in zip(self.baseline, self.contender, strict=True))

    def account(self, reduction: float, examples: int) -> dict[str, float]:
        """What the timings say beside the GFLOPs that were saved.

        Args:
            reduction: 1 - GFLOPs(contender) / GFLOPs(baseline), measured on the work that was timed.
            examples: in each run.

        Returns:
            `reduction`; `dense_ms` and `pruned_ms` an example, medians over the pairs; `speedup`; `ideal`, the speed-up
            if time went with GFLOPs; `efficiency = speedup / ideal`.
        """
        ideal = 1 / (1 - reduction)
        return {
            "reduction": round(reduction, 4),
            "dense_ms": round(1000 * median(self.baseline) / examples, 3),
            "pruned_ms": round(1000 * median(self.contender) / examples, 3),
            "speedup": round(self.speedup, 3),
            "ideal": round(ideal, 3),
            "efficiency": round(self.speedup / ideal, 3),
        }


def time_once(work: Callable[[], object]) -> float:
    """Seconds of one run, the GPU's queue emptied at both ends."""
    _synchronise()
    begin = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - begin


def time_pairs(
    baseline: Callable[[], object],
    contender: Callable[[], object],
    *,
    pairs: int = 7,
    warmup: int = 1,
    before: Callable[[], None] | None = None,
    advance: Callable[[], None] | None = None,
) -> Paired:
    """Run the two in turn; warm-up runs are thrown away.

    Args:
        baseline, contender: the work, e.g. one batch through the dense and through the pruned model.
        pairs: counted pairs.
        warmup: pairs not counted, first.
        before: called before every pair, e.g. to give both other inputs: what is run again and again is faster
            than what is new, for shapes that were met before cost less.
        advance: called after every pair.
    """
    times: list[tuple[float, float]] = []
    for i in range(warmup + pairs):
        if before is not None:
            before()
        pair = (time_once(baseline), time_once(contender))
        if i >= warmup:
            times.append(pair)
        if advance is not None:
            advance()
    return Paired(tuple(b for b, _ in times), tuple(c for _, c in times))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
