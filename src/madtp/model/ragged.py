"""Ragged batches as the towers pass them on: packed token vectors and the number of tokens of each instance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from madtp.prune.packed import pad, valid


@dataclass(frozen=True)
class Ragged:
    """Tokens of `b` instances, packed one after another.

    Attributes:
        values: `[t, c]`.
        lengths: `[b]` tokens of each instance, int64 on the CPU: loops and shapes need them there.
        size: `[t]` original tokens that each stands for, for whoever attends to them (texts and
            decoders); None = one each, or nobody does.
    """

    values: Tensor
    lengths: Tensor
    size: Tensor | None = None

    @cached_property
    def offsets(self) -> list[int]:
        """`b + 1` packed positions: instance i is `values[offsets[i]:offsets[i + 1]]`."""
        return [0, *self.lengths.cumsum(0).tolist()]

    @cached_property
    def longest(self) -> int:
        return int(self.lengths.max()) if len(self.lengths) else 0

    @classmethod
    def from_padded(cls, padded: Tensor, mask: Tensor | None = None) -> "Ragged":
        """From `[b, n, c]` and a `[b, n]` mask (nonzero = token) with its padding anywhere."""
        b, n = padded.shape[:2]
        flat = padded.reshape(b * n, *padded.shape[2:])
        if mask is None or bool(mask.bool().all()):
            return cls(flat, torch.full((b,), n, dtype=torch.long))
        mask = mask.bool()
        return cls(flat.index_select(0, mask.reshape(-1).nonzero().view(-1)), mask.sum(-1).cpu())

    def padded(self) -> tuple[Tensor, Tensor]:
        """`[b, n, c]` with zeros as padding on the right, and its `[b, n]` int64 mask."""
        lengths = self.lengths.to(self.values.device)
        mask = valid(lengths, self.longest)
        out = pad(self.values, lengths, self.longest)
        if not bool((self.lengths == self.longest).all()):
            out = out.masked_fill(~mask.view(*mask.shape, *[1] * (out.dim() - 2)), 0)
        return out, mask.long()

    def first(self) -> Tensor:
        """`[b, c]` the first (pooled) token of each instance."""
        start = torch.tensor(self.offsets[:-1], dtype=torch.long, device=self.values.device)
        return self.values.index_select(0, start)

    def last(self) -> Tensor:
        """`[b, c]` the last token of each instance, of at least one token each."""
        end = torch.tensor(self.offsets[1:], dtype=torch.long, device=self.values.device)
        return self.values.index_select(0, end - 1)

    def instance(self, i: int) -> Tensor:
        """`[n_i, c]` the tokens of one instance."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def positions(self, instances: Tensor) -> Tensor:
        """Packed positions of the tokens of these instances, in that order; on the device of `values`."""
        instances = instances.cpu()
        lengths = self.lengths[instances]
        start = (self.lengths.cumsum(0) - self.lengths)[instances]
        shift = (start - (lengths.cumsum(0) - lengths)).repeat_interleave(lengths)
        return (torch.arange(len(shift)) + shift).to(self.values.device)

    def select(self, instances: Tensor) -> "Ragged":
        """These instances, in that order, some twice maybe."""
        place = self.positions(instances)
        size = None if self.size is None else self.size.index_select(0, place)
        return Ragged(self.values.index_select(0, place), self.lengths[instances.cpu()], size)

    def with_values(self, values: Tensor) -> "Ragged":
        """Other vectors for the same tokens."""
        return replace(self, values=values)

    def bias(self) -> Tensor | None:
        """`[t]` what a key's scores get more, the logarithm of what it stands for; None = nothing."""
        return None if self.size is None else self.size.log()

    def split(self) -> list["Ragged"]:
        """Each instance as a batch of its own, on the CPU."""
        lengths = self.lengths.tolist()
        sizes = [None] * len(lengths) if self.size is None else self.size.cpu().split(lengths)
        parts = zip(self.values.cpu().split(lengths), self.lengths.split([1] * len(lengths)), sizes, strict=True)
        return [Ragged(*part) for part in parts]

    @classmethod
    def join(cls, parts: Sequence["Ragged"], device: torch.device) -> "Ragged":
        """Batches, one at least, one after another as one on `device`."""
        size = None
        if any(part.size is not None for part in parts):
            size = torch.cat([torch.ones(len(p.values)) if p.size is None else p.size for p in parts]).to(device)
        values = torch.cat([part.values for part in parts]).to(device)
        return cls(values, torch.cat([part.lengths for part in parts]), size)
