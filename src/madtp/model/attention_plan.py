"""Which instances of a ragged batch are computed together: chunks of like lengths, padded to their longest."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

# A chunk may compute this many times the work its instances need, padding included, and so many scores more.
WASTE, SPARE = 1.3, 4096
CPU_PADDED = 1 << 17  # elements of a chunk's scores on the CPU, if it is a copy: half a MB stays in a core's own cache


@dataclass(frozen=True)
class Side:
    """The queries or the keys of a chunk's instances.

    Attributes:
        starts: packed position of each instance's first token.
        lengths: tokens of each instance.
        n: the longest.
        device: of the tokens.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    n: int
    device: torch.device

    @cached_property
    def even(self) -> bool:
        """True if no instance is padded."""
        return min(self.lengths) == self.n

    @cached_property
    def place(self) -> slice | None:
        """The instances as one slice of the packed tokens, if they are one, unpadded and in order."""
        first = self.starts[0]
        if self.even and self.starts == tuple(range(first, first + self.n * len(self.starts), self.n)):
            return slice(first, first + self.n * len(self.starts))
        return None

    @cached_property
    def mask(self) -> Tensor:
        """`[c, n]` True at tokens."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(self.n, device=self.device) < lengths[:, None]

    @cached_property
    def _inside(self) -> Tensor:
        return torch.nonzero_static(self.mask.view(-1), size=sum(self.lengths)).view(-1)

    @cached_property
    def _gather(self) -> Tensor:
        """`[c * n]` packed positions; padding repeats the instance's last token."""
        last = torch.tensor(self.lengths, device=self.device) - 1
        offset = torch.minimum(torch.arange(self.n, device=self.device), last[:, None])
        return (offset + torch.tensor(self.starts, device=self.device)[:, None]).view(-1)

    @cached_property
    def position(self) -> Tensor:
        """`[sum of lengths]` packed positions of the tokens, instance by instance."""
        return self._gather if self.even else self._gather.index_select(0, self._inside)

    def take(self, packed: Tensor) -> Tensor:
        """`[t, h, d]` -> `[c, h, n, d]`; padding repeats the instance's last token."""
        rows = packed[self.place] if self.place is not None else packed.index_select(0, self._gather)
        return rows.view(len(self.starts), self.n, *packed.shape[1:]).transpose(1, 2)

    def view(self, packed: Tensor) -> Tensor | None:
        """`[t, h, d]` -> the very memory of the instances as `[c, h, n, d]`; None where they are not one slice."""
        return None if self.place is None else self.take(packed)

    def pack(self, padded: Tensor) -> Tensor:
        """`[c, n, ...]` -> `[sum of lengths, ...]`, in the order of `position`."""
        rows = padded.reshape(-1, *padded.shape[2:])
        return rows if self.even else rows.index_select(0, self._inside)

    def put(self, packed: Tensor, padded: Tensor) -> None:
        """Write the tokens of `[c, n, ...]` to their places in `packed [t, ...]`."""
        if self.place is not None:
            packed[self.place] = self.pack(padded)
        else:
            packed.index_copy_(0, self.position, self.pack(padded))


@dataclass(frozen=True)
class Chunk:
    """Instances computed in one piece. In self-attention `query` and `key` are the same object."""

    query: Side
    key: Side

    @property
    def size(self) -> int:
        """Number of instances."""
        return len(self.query.starts)


def plan(
    query_lengths: Tensor, key_lengths: Tensor, heads: int, device: torch.device, limit: int | None
) -> list[Chunk]:
    """Group the instances into chunks.

    Args:
        query_lengths: `[b]`, CPU. Instances without a query are left out.
        key_lengths: `[b]`, CPU; the very same tensor in self-attention.
        heads: attention heads.
        device: of the tokens.
        limit: most elements of one chunk's scores `[c, h, nq, nk]` where more than one instance shares it; None = any.
            On the CPU `CPU_PADDED` is another where lengths differ, and for instances of one length of which two exceed
            it, unless they lie side by side: to bring them together would copy more than it saves.
    """
    same = key_lengths is query_lengths
    nq: list[int] = query_lengths.tolist()
    nk: list[int] = nq if same else key_lengths.tolist()
    query_starts = [0, *accumulate(nq)]
    key_starts = query_starts if same else [0, *accumulate(nk)]

    def side(group: list[int], starts: list[int], lengths: list[int]) -> Side:
        own = tuple(lengths[i] for i in group)
        return Side(tuple(starts[i] for i in group), own, max(own), device)

    chunks = []
    padded = limit
    if device.type == "cpu":
        padded = CPU_PADDED if limit is None else min(limit, CPU_PADDED)
    for group in _groups(nq, nk, heads, limit, padded):
        query = side(group, query_starts, nq)
        chunks.append(Chunk(query, query if same else side(group, key_starts, nk)))
    return chunks


def _groups(nq: list[int], nk: list[int], heads: int, limit: int | None, padded: int | None) -> list[list[int]]:
    live = [i for i in range(len(nq)) if nq[i] > 0]
    order = sorted(live, key=lambda i: (nk[i], nq[i]))  # stable: equal lengths keep their order
    groups: list[list[int]] = []
    wide_q = wide_k = work = 0
    for i in order:
        q, k = max(wide_q, nq[i]), max(wide_k, nk[i])
        scores = (len(groups[-1]) + 1) * q * k if groups else 0
        needed = work + nq[i] * nk[i]
        beside = bool(groups) and i == groups[-1][-1] + 1  # one slice of the tokens
        short = padded is None or 2 * q * k * heads <= padded
        most = limit if scores == needed and (beside or short) else padded
        fits = bool(groups) and (most is None or scores * heads <= most)
        if fits and scores <= WASTE * needed + SPARE:
            groups[-1].append(i)
            wide_q, wide_k, work = q, k, needed
        else:
            groups.append([i])
            wide_q, wide_k, work = nq[i], nk[i], nq[i] * nk[i]
    return groups
