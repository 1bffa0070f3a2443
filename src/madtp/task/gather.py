"""Rows of a batch that is spread over processes, gathered in the order of their ranks, with gradients.

One process, or no process group, gathers nothing. Every process must call the same functions in the same order.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise, zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from madtp.model.ragged import Ragged

T = TypeVar("T")
Row = TypeVar("Row", list[Any], "array[float]")
NONE: Any = object()


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _AllGather(torch.autograd.Function):
    """`[n, ...]`, of one shape everywhere, to `[processes, n, ...]`; backward adds up what every process asks of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def _counts(rows: int, device: torch.device) -> list[int]:
    """How many rows each process has."""
    if world()[1] == 1:
        return [rows]
    parts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(world()[1])]
    dist.all_gather(parts, torch.tensor([rows], device=device))
    return [int(part) for part in parts]


def place(rows: int, device: torch.device) -> tuple[int, int]:
    """Where this process's rows begin among those of all, and how many all have; `device` of the rows."""
    counts = _counts(rows, device)
    return sum(counts[: world()[0]]), sum(counts)


def gather(x: Tensor) -> Tensor:
    """`[n, ...]` rows of this process to the rows of all, `[n_0 + n_1 + ..., ...]`; n may differ between them.

    The gradient of a row is the sum of what all processes' losses ask of it.
    """
    if world()[1] == 1:
        return x
    rows = _counts(len(x), x.device)
    wide = torch.cat([x, x.new_zeros(max(rows) - len(x), *x.shape[1:])])
    parts = _AllGather.apply(wide.contiguous())
    return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])


def gather_ragged(x: Ragged) -> Ragged:
    """The instances of all processes."""
    lengths = gather(x.lengths.to(x.values.device)).cpu()
    return Ragged(gather(x.values), lengths, None if x.size is None else gather(x.size))


def weigh(rows: int | Tensor, device: torch.device) -> float | Tensor:
    """What a mean over this process's `rows` counts, for its mean over the processes to be that over all their rows."""
    if world()[1] == 1:
        return 1.0
    mine = torch.as_tensor(rows, device=device, dtype=torch.float64)
    total = mine.clone()
    dist.all_reduce(total)
    return mine * world()[1] / total


def averages(numbers: dict[str, float], device: torch.device) -> dict[str, float]:
    """Means over the processes, which must name the same."""
    if world()[1] == 1:
        return numbers
    values = torch.tensor([numbers[name] for name in sorted(numbers)], device=device, dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(sorted(numbers), (values / world()[1]).tolist(), strict=True))


def largest(numbers: Sequence[int], device: torch.device) -> list[int]:
    """Each of some numbers as it is in the process where it is largest, for decisions that all must take alike."""
    if world()[1] == 1:
        return list(numbers)
    values = torch.tensor(numbers, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return [int(value) for value in values]


def mean_of(x: Tensor) -> Tensor:
    """Mean of `x`, of one shape everywhere, over the processes, without gradient."""
    total = x.detach().clone()
    if world()[1] > 1:
        dist.all_reduce(total)
    return total / world()[1]


def share(things: Iterable[T]) -> Iterator[T]:
    """This process's part of what all have alike; `together` joins what is made of each."""
    rank, processes = world()
    return islice(things, rank, None, processes)


def together(parts: Sequence[T]) -> list[T]:
    """What the processes made of their `share`s, in the order of the things, for all of them."""
    if world()[1] == 1:
        return list(parts)
    every: list[list[T]] = [[] for _ in range(world()[1])]
    dist.all_gather_object(every, list(parts))
    return [x for row in zip_longest(*every, fillvalue=NONE) for x in row if x is not NONE]


def in_order(row: Row, ends: Sequence[int]) -> Row:
    """What is in the rows of all processes, in the order of the things.

    Args:
        row: a list or an array: what this process made of its `share`, one thing after another.
        ends: where that of each thing ends.
    """
    if world()[1] == 1:
        return row
    every = row[:0]
    for part in together([row[begin:end] for begin, end in pairwise([0, *ends])]):
        every += part
    return every


def mean(x: Tensor) -> Tensor:
    """This process's part of the mean of `x [n]` over all rows of all processes.

    Scaled so that the mean of it over the processes is that mean, and so is its gradient when gradients are averaged.
    """
    return x.sum() * (world()[1] / place(len(x), x.device)[1])
