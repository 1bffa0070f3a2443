"""Applying a decision: kept tokens stay in order, all others of an instance become one merged token, or several.

`Selection` is the decision alone, so that the same one is applied to features, to provenance, or to whatever else rides
along.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from madtp.prune.packed import place_of
from madtp.prune.score import denominator


@dataclass(frozen=True)
class Gate:
    """The straight-through gradient of a selection, for training: how much each kept token is worth keeping.

    Forward it changes nothing. Backward, the value of gate g gets the gradient it would have if kept token x were
    `g x + (1 - g) m`, m the merged token of its instance: by how much the loss would rise if x went into m too.

    Attributes:
        kept: `[g]` positions in the output of tokens that could have been merged; those of instances that merge none
            are left out.
        beside: `[g]` number of the merged token that each would have gone to.
        value: `[g]` of each gate, higher = kept more surely. Gets the gradient.
    """

    kept: Int[Tensor, " g"]
    beside: Int[Tensor, " g"]
    value: Float[Tensor, " g"]

    def apply(self, out: Float[Tensor, "u c"], merged: Int[Tensor, " m"]) -> Float[Tensor, "u c"]:
        """The same tokens, with the gradient. `merged` holds the positions of the merged ones."""
        away = out.detach().index_select(0, self.kept)
        away = away - out.detach().index_select(0, merged.index_select(0, self.beside))
        none = (self.value - self.value.detach())[:, None]  # 0, with a gradient
        return out.index_add(0, self.kept, (none * away).to(out.dtype))


@dataclass(frozen=True)
class Selection:
    """Which packed tokens stay and which are merged, for `t` tokens of `b` instances going in and `u` coming out.

    Attributes:
        lengths: `[b]` tokens of each instance after the step, on the CPU.
        index: `[u]` packed input position each output token is copied from; None = nothing is pruned, input is output.
        merged: `[m]` positions in the output that hold a merged token instead of the copy.
        source: `[s]` packed input positions that are merged.
        target: `[s]` to which of the m merged tokens each goes, ascending.
        weight: `[s]` merge weights; those of one merged token sum to 1 (less the epsilon). Carries gradient.
        gate: for a straight-through gradient; None = there is none.
    """

    lengths: Int[Tensor, " b"]
    index: Int[Tensor, " u"] | None = None
    merged: Int[Tensor, " m"] | None = None
    source: Int[Tensor, " s"] | None = None
    target: Int[Tensor, " s"] | None = None
    weight: Float[Tensor, " s"] | None = None
    gate: "Gate | None" = None

    def apply(self, values: Float[Tensor, "t c"]) -> Float[Tensor, "u c"]:
        """Kept rows copied, merged rows `sum_j weight[j] values[j]`."""
        if self.index is None:
            return values
        assert self.merged is not None and self.source is not None and self.target is not None
        assert self.weight is not None
        out = values.index_select(0, self.index)
        out = out.index_copy_(0, self.merged, self._sums(values).to(values.dtype))
        return out if self.gate is None else self.gate.apply(out, self.merged)

    def _sums(self, values: Float[Tensor, "t c"]) -> Float[Tensor, "m c"]:
        """The merged tokens, added up in the precision of the weights: bfloat16 loses a sum of hundreds of shares.

        Without gradients, on the CPU, as bags of embeddings: one pass over the rows instead of three.
        """
        assert self.merged is not None and self.source is not None and self.target is not None
        assert self.weight is not None
        m, wide = self.merged.shape[0], self.weight.dtype
        if not torch.is_grad_enabled() and values.is_cpu and torch.promote_types(values.dtype, wide) is wide:
            rows, place = values, self.source
            if values.dtype is not wide:
                rows, place = values.index_select(0, place).to(wide), torch.arange(len(place), device=place.device)
            starts = torch.searchsorted(self.target, torch.arange(m, device=place.device))
            return F.embedding_bag(place, rows, starts, mode="sum", per_sample_weights=self.weight)
        weighted = values.index_select(0, self.source) * self.weight[:, None]
        # index_select, not values[...]: ten times faster on the CPU; scatter_add, not index_add: twice
        return weighted.new_zeros(m, values.shape[1]).scatter_add(0, self.target[:, None].expand_as(weighted), weighted)

    def total(self, values: Float[Tensor, " t"]) -> Float[Tensor, " u"]:
        """What each token holds of numbers that add up where tokens are merged, such as sizes."""
        if self.weight is None:
            return values
        return replace(self, weight=torch.ones_like(self.weight), gate=None).apply(values[:, None])[:, 0]

    def follow(self, owner: Int[Tensor, " p"], share: Float[Tensor, " p"]) -> tuple[Tensor, Tensor]:
        """Provenance: where the token that holds each original token has gone.

        Args:
            owner: packed input position of the token that holds each of p original tokens.
            share: weight it carries there; 1 = kept as itself.

        Returns:
            The same two, for the output.
        """
        if self.index is None:
            return owner, share
        assert self.merged is not None and self.source is not None and self.target is not None
        assert self.weight is not None
        t = int(self.index.shape[0] + self.source.shape[0] - self.merged.shape[0])
        copied = torch.ones(self.index.shape[0], dtype=torch.bool, device=owner.device)
        copied[self.merged] = False
        destination = torch.empty(t, dtype=torch.long, device=owner.device)
        destination[self.index[copied]] = copied.nonzero().view(-1)
        destination[self.source] = self.merged[self.target]
        weight = torch.ones(t, dtype=share.dtype, device=share.device)
        weight[self.source] = self.weight.detach().to(share.dtype)
        return destination[owner], share * weight[owner]


def select(
    keep: Bool[Tensor, "b n"],
    content: Bool[Tensor, "b n"],
    weight: Float[Tensor, "b n"],
    lengths: Int[Tensor, " b"],
    tail: int,
    gate: Float[Tensor, "b n"] | None = None,
) -> Selection:
    """Turn a keep mask into a `Selection`: `sum_j TIS[j] x[j] / (sum_j TIS[j] + 1e-8)` over what is not kept.

    The merged token stands right behind the last content token; protected tokens keep their places.

    Args:
        keep: content tokens that stay; an instance that keeps all of its content gets no merged token.
        content: tokens that may be pruned; valid tokens outside it are protected.
        weight: unnormalised merge weights (TIS), read where a token is merged.
        lengths: tokens of each instance before the step, on the CPU.
        tail: protected tokens at the end of each instance; right before them its content ends.
        gate: how surely each token is kept, for a straight-through gradient, see `Gate`; None = without.
    """
    drop = content & ~keep
    counts: list[int] = drop.sum(-1).tolist()  # the step's one copy from the device
    if not any(counts):
        return Selection(lengths=lengths)
    # From here on shapes are known and tokens packed: with few of them it is the number of operators that takes time.
    device, before = keep.device, lengths.tolist()
    after = [n - lost + (lost > 0) for n, lost in zip(before, counts, strict=True)]
    pruned = [i for i, lost in enumerate(counts) if lost]
    ends_in, ends_out = list(accumulate(before)), list(accumulate(after))
    places = [[ends_in[i] - tail - 1, ends_out[i] - tail - 1, counts[i]] for i in pruned]
    last, merged, many = torch.tensor(places, device=device).T.contiguous()
    on_device = lengths.to(device)
    inside = place_of(on_device, keep.shape[1], sum(before))
    going = _packed(drop, inside)
    gone = torch.nonzero_static(going, size=sum(counts)).view(-1)
    # a token that goes is not copied; the last one is once more, where the merged token will stand
    copies = torch.where(going, 0, 1).index_add_(0, last, torch.ones_like(last))
    index = torch.repeat_interleave(copies, output_size=ends_out[-1])
    target = torch.repeat_interleave(many, output_size=sum(counts))
    raw = _packed(weight, inside).index_select(0, gone)
    total = raw.new_zeros(len(pruned)).index_add(0, target, raw)
    gates = None
    if gate is not None:
        goes_to = {i: number for number, i in enumerate(pruned)}
        of_instance = torch.tensor([goes_to.get(i, -1) for i in range(len(before))], device=device)
        number = torch.repeat_interleave(of_instance, on_device, output_size=sum(before))
        free = (_packed(keep, inside) & (number >= 0)).index_select(0, index).index_fill(0, merged, False)
        kept = free.nonzero().view(-1)
        where = index.index_select(0, kept)
        gates = Gate(kept, number.index_select(0, where), _packed(gate, inside).index_select(0, where))
    return Selection(
        lengths=torch.tensor(after),
        index=index,
        merged=merged,
        source=gone,
        target=target,
        weight=raw / denominator(total).index_select(0, target),
        gate=gates,
    )


def _packed(padded: Shaped[Tensor, "b n"], inside: Int[Tensor, " t"] | None) -> Shaped[Tensor, " t"]:
    """The tokens alone, by `place_of`."""
    flat = padded.reshape(-1)
    return flat if inside is None else flat.index_select(0, inside)
