"""Rows of a batch that is spread over processes, gathered in the order of their ranks, with gradients.

One process, or no process group, gathers nothing. Every process must call the same functions in the same order.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from madtp.model.ragged import Ragged


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
    return Ragged(gather(x.values), lengths)


def mean(x: Tensor) -> Tensor:
    """This process's part of the mean of `x [n]` over all rows of all processes.

    Scaled so that the mean of it over the processes is that mean, and so is its gradient when gradients are averaged.
    """
    return x.sum() * (world()[1] / place(len(x), x.device)[1])
