"""The one evaluation loop, and the measuring that calibration rests on."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from madtp.cost.budget import Found, OutOfReach, find_strength
from madtp.cost.flops import count_dense, count_least, reduction
from madtp.cost.latency import Paired, time_pairs
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.shape import shape_of
from madtp.prune import METHODS, Trace
from madtp.task.base import Batch, Prediction, Scored, Task, cost
from madtp.task.gather import share, together, world

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """What a model answers on a split, and what that took.

    Attributes:
        scored: predictions in the data's order and their metrics.
        gflops, dense: `[q]` GFLOPs of each text with its image(s), as run and of the dense model.
        kept: `[q]` mean share of the image's patches that a block works on after its pruning step.
        per_block: mean content tokens out of each vision block.
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
        for prediction, kept in zip(self.predictions, self.kept.tolist(), strict=True):
            if prediction.objects is not None:
                shares[prediction.objects].append(kept)
        return {str(n): sum(some) / len(some) for n, some in sorted(shares.items())}

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
                "by_objects": self.by_objects(),
            },
            "seconds": self.seconds,
        }


def batches(
    task: Task, data: Data[Any], batch_size: int, device: torch.device, shared: bool = False
) -> Iterator[Batch]:
    """The split in order, on `device`; `shared`: of its batches those that fall to this process."""
    order = [range(i, min(i + batch_size, len(data))) for i in range(0, len(data), batch_size)]
    sampler: Any = share(order) if shared else order
    loader = DataLoader(task.dataset(data), batch_sampler=sampler, collate_fn=task.collate)
    for batch in loader:
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


def evaluate(
    model: Any, task: Task, data: Data[Any], *, batch_size: int = 32, advance: Advance | None = None
) -> Evaluation:
    """Answer every text of a split and account for it.

    Args:
        model: on its device.
        task: how to batch and to answer.
        data: the split. Several processes take its batches in turn, and all of them get the whole result.
        batch_size: images a batch.
        advance: told the number of images done, for a progress bar.

    Raises:
        InputError: there is nothing to answer.
    """
    parts: list[tuple[list[Prediction], Tensor, Tensor, Tensor, Tensor]] = []  # one a batch
    begin = time.perf_counter()
    with evaluating(model):
        for batch in batches(task, data, batch_size, model.device, shared=True):
            answered, encoded = task.predict(model, batch, data.answers)
            run, full = cost(model, encoded.trace)
            seen, tokens = kept_share(encoded.trace)
            index = encoded.trace.image_index
            kept = seen[index[:, None] if index.ndim == 1 else index].mean(-1)
            parts.append((answered, run.total, full.total, kept, tokens))
            if advance is not None:
                advance(len(batch["samples"]) * world()[1])
        parts = together(parts)
        predictions = [prediction for part in parts for prediction in part[0]]
        scored = task.finish(model, predictions)
    if not scored.predictions:
        raise InputError(f"holds no {task.text_name}", f"{data.name} {data.split}", "evaluate another split")
    return Evaluation(
        task.name,
        data.split,
        scored,
        torch.cat([part[1] for part in parts]),
        torch.cat([part[2] for part in parts]),
        torch.cat([part[3] for part in parts]),
        torch.cat([part[4] for part in parts]).mean(0).tolist(),
        time.perf_counter() - begin,
    )


def measure_reduction(model: Any, task: Task, some: Sequence[Batch]) -> float:
    """Reduction measured at the model's temperature; the decoder is counted as if it gave the reference answers."""
    costs = []
    with evaluating(model):
        for batch in share(some):
            trace = task.expect(task.trace(model, batch), batch)
            costs.append(tuple(of.total for of in cost(model, trace)))
    run, full = zip(*together(costs), strict=True)
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

    def measure(strength: float) -> float:
        model.temperature = strength
        value = measure_reduction(model, task, some)
        if tried is not None:
            tried(strength, value)
        return value

    low, high = method.bounds
    try:
        found = None
        if near is not None:
            try:
                close = (max(low, near / 3), min(high, near * 3))
                found = find_strength(measure, target, close, tolerance=tolerance, grid=3)
            except OutOfReach:
                found = None
        if found is None:
            found = find_strength(measure, target, (low, high), tolerance=tolerance, mildest=mildest)
    except BaseException:  # an interrupt too
        model.pruning = before
        raise
    model.pruning = PruneConfig(**{**before.to_dict(), "temperature": found.strength, "reduction": found.reduction})
    return found
