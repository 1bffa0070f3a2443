"""The one evaluation loop, and the measuring that calibration rests on."""

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from madtp.cost.flops import reduction
from madtp.cost.latency import Paired, time_pairs
from madtp.data.faults import Faults
from madtp.data.sample import Data
from madtp.errors import InputError
from madtp.model.config import PruneConfig
from madtp.model.shape import shape_of
from madtp.prune import Trace
from madtp.task.base import Batch, Prediction, Scored, Task, cost
from madtp.task.gather import in_order, share, together, world
from madtp.task.tolerant import learn, stream

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
        for prediction, kept in zip(self.predictions, self.kept.tolist(), strict=True):
            if prediction.objects is not None:
                shares[prediction.objects].append(kept)
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
    task: Task,
    data: Data[Any],
    batch_size: int,
    device: torch.device,
    faults: Faults | None = None,
    shared: bool = False,
) -> Iterator[Batch]:
    """The split in order, on `device`.

    Args:
        task: how to batch.
        data: the split.
        batch_size: images a batch.
        device: for the tensors.
        faults: what is done about samples that cannot be read.
        shared: only those of the batches that fall to this process; one of which nothing could be read comes empty.
    """
    order = [range(i, min(i + batch_size, len(data))) for i in range(0, len(data), batch_size)]
    sampler: Any = list(share(order)) if shared else order
    for batch in stream(task.dataset(data), task, faults, batch_sampler=sampler):
        if batch or shared:
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
        data: the split. Several processes take its batches in turn, and all of them get the whole result.
        batch_size: images a batch.
        advance: told the number of images done, for a progress bar.
        faults: what to do about samples that cannot be read; None = the first ends it.

    Raises:
        InputError: there is nothing to answer, or too many samples cannot be read.
    """
    # Predictions, and numbers: a row for each, to which every batch adds. Small tensors that stay, five a batch, would
    # lie strewn among the large ones that come and go; these would find no room between them, and the process grow.
    rows: list[Any] = [[], *(array("d") for _ in range(5))]
    ends: list[list[int]] = []  # of the batches in the rows
    begin = time.perf_counter()
    with evaluating(model):
        for batch in batches(task, data, batch_size, model.device, faults, shared=True):
            if not batch:
                ends.append([len(row) for row in rows])
                continue
            answered, encoded = task.predict(model, batch, data.answers)
            run, full = cost(model, encoded.trace)
            share_of_each, tokens = kept_share(encoded.trace)
            index = encoded.trace.image_index
            seen = index[:, None] if index.ndim == 1 else index
            detail = detail_of(batch["pixel_values"]).cpu()[seen].mean(-1)
            rows[0] += answered
            numbers = run.total, full.total, share_of_each[seen].mean(-1), detail, tokens
            for row, some in zip(rows[1:], numbers, strict=True):
                row.frombytes(some.double().numpy().tobytes())
            ends.append([len(row) for row in rows])
            if advance is not None:
                advance(len(batch["samples"]) * world()[1])
        learn(faults, data.split, len(data))
        predictions, *rows = [in_order(row, [end[i] for end in ends]) for i, row in enumerate(rows)]
        scored = task.finish(model, predictions)
    if not scored.predictions:
        raise InputError(f"holds no {task.text_name}", f"{data.name} {data.split}", "evaluate another split")
    gflops, dense, kept, detail, out = (torch.from_numpy(np.array(row)) for row in rows)
    out = out.view(-1, shape_of(model).vision.layers)
    return Evaluation(
        task.name,
        data.split,
        scored,
        gflops,
        dense,
        kept,
        out.mean(0).tolist(),
        time.perf_counter() - begin,
        (out.quantile(0.05, 0).tolist(), out.quantile(0.95, 0).tolist()),
        detail,
    )


def measure_reduction(model: Any, task: Task, some: Iterable[Batch]) -> float:
    """Reduction measured at the model's temperature; the decoder is counted as if it gave the reference answers."""
    costs = []
    with evaluating(model):
        for batch in share(some):
            trace = task.expect(task.trace(model, batch), batch)
            costs.append(tuple(of.total for of in cost(model, trace)))
    run, full = zip(*together(costs), strict=True)
    return reduction(torch.cat(run), torch.cat(full))


def time_towers(model: Any, task: Task, data: Data[Any], *, pairs: int = 7, dense: Any = None) -> Paired:
    """Wall time of the towers on `data` in one batch: dense (the baseline), and as the model prunes, in turn.

    Args:
        model, task, data, pairs: what to time, and how often.
        dense: the model that it was made of, where weights have been taken out; None = itself, without pruning.

    Raises:
        InputError: weights have been taken out of the model, and it was made of none that is given.
    """
    (batch,) = batches(task, data, len(data), model.device)
    inputs, own, whole = task.inputs(batch), model.pruning, model if dense is None else dense
    baseline = replace(whole.pruning, temperature=None)

    def at(which: Any, setting: PruneConfig) -> None:
        which.pruning = setting
        which.encode(**inputs)

    try:
        with evaluating(whole), evaluating(model):
            return time_pairs(lambda: at(whole, baseline), lambda: at(model, own), pairs=pairs)
    finally:
        model.pruning = own


def timed(model: Any, task: Task, data: Data[Any], *, pairs: int = 7, dense: Any = None) -> dict[str, float]:
    """`ms_per_image` of the towers as the model prunes, all of `data` in one batch, and `speedup` over dense.

    `dense` as for `time_towers`.
    """
    times = time_towers(model, task, data, pairs=pairs, dense=dense)
    speedup = times.speedup if model.temperature else 1.0
    return {"ms_per_image": 1000 * median(times.contender) / len(data), "speedup": speedup}


def places_of(predictions: Sequence[Prediction], data: Data[Any]) -> list[tuple[int, int]]:
    """Of each prediction in the data's order: the number of its sample in `data`, and of its text in the sample."""
    index = {sample.image_id: i for i, sample in enumerate(data.samples)}
    met: Counter[str] = Counter()
    found = []
    for prediction in predictions:
        found.append((index[prediction.image_id], met[prediction.image_id]))
        met[prediction.image_id] += 1
    return found
