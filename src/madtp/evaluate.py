"""The one evaluation loop, and the measuring that calibration rests on."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from madtp.cost.budget import Found, OutOfReach, find_from_sample, find_strength
from madtp.cost.flops import count_dense, count_least, reduction
from madtp.cost.latency import Paired, time_pairs
from madtp.data.faults import Faults
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.shape import shape_of
from madtp.prune import METHODS, Trace
from madtp.task.base import Batch, Prediction, Scored, Task, cost
from madtp.task.tolerant import stream

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """What a model answers on a split, and what that took.

    Attributes:
        scored: predictions in the data's order and their metrics.
        gflops, dense: `[q]` GFLOPs of each text with its image(s), as run and of the dense model.
        kept: `[q]` mean share of the image's patches that a block works on after its pruning step.
        per_block: mean content tokens out of each vision block.
        spread: 5th and 95th percentile over images of the same; empty where it was not kept.
        detail: `[q]` how much there is to see in each text's image(s), see `detail_of`; None where it was not kept.
        seconds: wall time of the loop.
    """

    task: str
    split: str
    scored: Scored = field(repr=False)
    gflops: Tensor
    dense: Tensor
    kept: Tensor
    per_block: list[float]
    seconds: float = 0.0
    spread: tuple[list[float], list[float]] = ([], [])
    detail: Tensor | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Name -> value, accuracy in [0, 1]; empty where the split has no truth."""
        return self.scored.metrics

    @property
    def predictions(self) -> list[Prediction]:
        """In the data's order."""
        return self.scored.predictions

    @property
    def reduction(self) -> float:
        """Measured reduction: `1 - mean GFLOPs / mean dense GFLOPs`."""
        return reduction(self.gflops, self.dense)

    def by_objects(self) -> dict[str, float]:
        """Mean kept share by number of objects in the picture, where the data knows it."""
        shares: dict[int, list[float]] = defaultdict(list)
        for prediction, share in zip(self.predictions, self.kept.tolist(), strict=True):
            if prediction.objects is not None:
                shares[prediction.objects].append(share)
        return {str(n): sum(some) / len(some) for n, some in sorted(shares.items())}

    def by_detail(self) -> dict[str, float]:
        """Mean kept share by quarter of the pictures, from those with the least detail (1) to the most (4)."""
        if self.detail is None:
            return {}
        edges = self.detail.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=self.detail.dtype))
        quarter = torch.bucketize(self.detail, edges)  # alike pictures share a quarter, which may leave one empty
        return {str(n + 1): float(self.kept[quarter == n].mean()) for n in range(4) if bool((quarter == n).any())}

    def to_dict(self) -> dict[str, Any]:
        """The stable keys of `evaluate --json`."""
        return {
            "task": self.task,
            "split": self.split,
            "n": len(self.predictions),
            "metrics": self.metrics,
            "scoring": self.scored.scoring,
            "gflops": {
                "dense": float(self.dense.mean()),
                "mean": float(self.gflops.mean()),
                "p50": float(self.gflops.quantile(0.5)),
                "p95": float(self.gflops.quantile(0.95)),
                "reduction": self.reduction,
            },
            "tokens": {
                "kept_fraction": float(self.kept.mean()),
                "per_block": self.per_block,
                "per_block_p5": self.spread[0],
                "per_block_p95": self.spread[1],
                "by_objects": self.by_objects(),
                "by_detail": self.by_detail(),
            },
            "seconds": self.seconds,
        }


def batches(
    task: Task, data: Data[Any], batch_size: int, device: torch.device, faults: Faults | None = None
) -> Iterator[Batch]:
    """The split in order, on `device`; what is done about samples that cannot be read `faults` says."""
    for batch in stream(task.dataset(data), task, faults, batch_size=batch_size):
        if batch:
            yield to_device(batch, device)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Tensors of a batch moved, the rest as it is."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; the mode before comes back."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def kept_share(trace: Trace) -> tuple[Tensor, Tensor]:
    """`[b]` mean share of each image's patches after a block, and `[b, blocks]` content tokens out."""
    blocks = trace.tower("vision")
    out = torch.stack([block.tokens_out for block in blocks], -1).double()
    full = blocks[0].tokens_in if blocks[0].full is None else blocks[0].full
    return (out / full[:, None]).mean(-1), out


def detail_of(pixels: Tensor) -> Tensor:
    """`[b]` how much there is to see in each picture `[b, 3, h, w]`: mean size of neighbouring pixels' difference."""
    pixels = pixels.double()
    down, right = pixels.diff(dim=-2).abs(), pixels.diff(dim=-1).abs()
    return down.mean((1, 2, 3)) + right.mean((1, 2, 3))


def evaluate(
    model: Any,
    task: Task,
    data: Data[Any],
    *,
    batch_size: int = 32,
    advance: Advance | None = None,
    faults: Faults | None = None,
) -> Evaluation:
    """Answer every text of a split and account for it.

    Args:
        model: on its device.
        task: how to batch and to answer.
        data: the split.
        batch_size: images a batch.
        advance: told the number of images done, for a progress bar.
        faults: what to do about samples that cannot be read; None = the first ends it.

    Raises:
        InputError: there is nothing to answer, or too many samples cannot be read.
    """
    predictions: list[Prediction] = []
    gflops, dense, kept, out, detail = [], [], [], [], []
    begin = time.perf_counter()
    with evaluating(model):
        for batch in batches(task, data, batch_size, model.device, faults):
            answered, encoded = task.predict(model, batch, data.answers)
            predictions += answered
            run, full = cost(model, encoded.trace)
            share, tokens = kept_share(encoded.trace)
            index = encoded.trace.image_index
            gflops.append(run.total)
            dense.append(full.total)
            seen = index[:, None] if index.ndim == 1 else index
            kept.append(share[seen].mean(-1))
            detail.append(detail_of(batch["pixel_values"]).cpu()[seen].mean(-1))
            out.append(tokens)
            if advance is not None:
                advance(len(batch["samples"]))
        scored = task.finish(model, predictions)
    if not scored.predictions:
        raise InputError(f"holds no {task.text_name}", f"{data.name} {data.split}", "evaluate another split")
    return Evaluation(
        task.name,
        data.split,
        scored,
        torch.cat(gflops),
        torch.cat(dense),
        torch.cat(kept),
        torch.cat(out).mean(0).tolist(),
        time.perf_counter() - begin,
        (torch.cat(out).quantile(0.05, 0).tolist(), torch.cat(out).quantile(0.95, 0).tolist()),
        torch.cat(detail),
    )


def measure_reduction(model: Any, task: Task, some: Iterable[Batch]) -> float:
    """Reduction measured at the model's temperature; the decoder is counted as if it gave the reference answers."""
    run, full = [], []
    with evaluating(model):
        for batch in some:
            trace = task.expect(task.trace(model, batch), batch)
            pruned, dense = cost(model, trace)
            run.append(pruned.total)
            full.append(dense.total)
    return reduction(torch.cat(run), torch.cat(full))


def time_towers(model: Any, task: Task, data: Data[Any], *, pairs: int = 7) -> Paired:
    """Wall time of the towers on `data` in one batch: dense (the baseline), and as the model prunes, in turn."""
    (batch,) = batches(task, data, len(data), model.device)
    inputs, own = task.inputs(batch), model.pruning

    def at(setting: PruneConfig) -> None:
        model.pruning = setting
        model.encode(**inputs)

    try:
        with evaluating(model):
            return time_pairs(lambda: at(replace(own, temperature=None)), lambda: at(own), pairs=pairs)
    finally:
        model.pruning = own


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
