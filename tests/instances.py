"""Random instances as the slow twins see them, one at a time, and the packed evidence the package sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from madtp.prune import Evidence

HEADS, WIDTH, SEMANTIC, CHANNELS = 3, 5, 7, 11
# Very different lengths, among them nothing but protected tokens, one and two content tokens.
RAGGED = (13, 0, 1, 29, 2, 5, 19)
DTYPES = {torch.float64: 1e-10, torch.float32: 2e-5}


@dataclass(frozen=True)
class Instance:
    """One unpadded instance of N = head + n + tail tokens in one block.

    Attributes:
        x: `[N, c]` tokens after self-attention.
        probability: `[h, N, N]`.
        output: `[N, h, d]` attention output per head.
        affinity: `[N, k]`.
        head, tail: protected tokens.
        key: `[N, d]`, mean over heads.
        size: `[N]` original tokens that each stands for.
    """

    x: Tensor
    probability: Tensor
    output: Tensor
    affinity: Tensor
    head: int = 1
    tail: int = 0
    key: Tensor | None = None
    size: Tensor | None = None

    @property
    def content(self) -> range:
        return range(self.head, len(self.x) - self.tail)


def instance(
    n: int, seed: int, dtype: torch.dtype = torch.float64, head: int = 1, tail: int = 0, shift: float = 0.0
) -> Instance:
    """An instance of n content tokens; `shift` is added to its affinities."""
    g = torch.Generator().manual_seed(seed)
    total = head + n + tail

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return Instance(
        normal(total, CHANNELS),
        (normal(HEADS, total, total) * 2).softmax(-1),
        normal(total, HEADS, WIDTH),
        normal(total, SEMANTIC) + shift,
        head,
        tail,
        normal(total, WIDTH),
        torch.randint(1, 6, (total,), generator=g).to(dtype),
    )


def batch(
    lengths: Sequence[int] = RAGGED,
    dtype: torch.dtype = torch.float64,
    head: int = 1,
    tail: int = 0,
    shift: float = 0.0,
    seed: int = 0,
) -> list[Instance]:
    return [instance(n, 100 * seed + i, dtype, head, tail, shift) for i, n in enumerate(lengths)]


def features(instances: Sequence[Instance]) -> Tensor:
    """`[t, c]` the tokens, packed."""
    return torch.cat([i.x for i in instances])


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Packed; None where there is nothing."""
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def evidence(instances: Sequence[Instance], fewest: int = 1, block: int = 0, before: int = 0) -> Evidence:
    """What the package is given: packed, with the statistics of the attention probabilities instead of the maps.

    `before`: content tokens that every instance has lost since it entered the tower.
    """
    rows, columns = [], []
    for i in instances:
        rows.append(i.probability[:, -1 if i.tail else 0].T)
        columns.append(i.probability[:, i.content.start : i.content.stop].amax(0).sum(0))
    return Evidence(
        lengths=torch.tensor([len(i.x) for i in instances]),
        class_row=torch.cat(rows),
        output_norm=torch.cat([i.output for i in instances]).norm(dim=-1),
        column=torch.cat(columns),
        affinity=torch.cat([i.affinity for i in instances]),
        key=joined([i.key for i in instances]),
        size=joined([i.size for i in instances]),
        entered=torch.tensor([len(i.content) + before for i in instances]),
        head=instances[0].head,
        tail=instances[0].tail,
        fewest=fewest,
        block=block,
    )


def equal_scores(n: int, value: float = 0.25) -> Instance:
    """An instance whose tokens cannot be told apart by any score."""
    like = instance(n, 0)
    return replace(
        like,
        probability=torch.full_like(like.probability, 1 / (n + 1)),
        output=torch.ones_like(like.output),
        affinity=torch.full_like(like.affinity, value),
    )


def mask_of(lists: Sequence[Sequence[bool]], head: int = 1, tail: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Per-instance keep lists of content tokens -> padded `keep`, padded `content`, `lengths`."""
    lengths = torch.tensor([head + len(keep) + tail for keep in lists])
    keep = torch.zeros(len(lists), int(lengths.max()), dtype=torch.bool)
    content = torch.zeros_like(keep)
    for i, row in enumerate(lists):
        keep[i, head : head + len(row)] = torch.tensor(row, dtype=torch.bool)
        content[i, head : head + len(row)] = True
    return keep, content, lengths


def padded(lists: Sequence[Sequence[float]], n: int, head: int = 1, fill: float = 0.0) -> Tensor:
    """Per-instance numbers of content tokens in a padded float64 layout; `fill` everywhere else."""
    out = torch.full((len(lists), n), fill, dtype=torch.float64)
    for i, row in enumerate(lists):
        out[i, head : head + len(row)] = torch.tensor(row, dtype=torch.float64)
    return out
