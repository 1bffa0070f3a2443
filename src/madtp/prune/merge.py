"""Applying a decision: kept tokens stay in order, all others of an instance become one merged token, or several.

`Selection` is the decision alone, so that the same one is applied to features, to provenance, or to whatever else rides
along.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.packed import padded_index
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
        lengths: `[b]` tokens of each instance after the step, on the CPU (the step's one copy from the device).
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
    gate: Float[Tensor, "b n"] | None = None,
) -> Selection:
    """Turn a keep mask into a `Selection`: `sum_j TIS[j] x[j] / (sum_j TIS[j] + 1e-8)` over what is not kept.

    The merged token stands right behind the last content token; protected tokens keep their places.

    Args:
        keep: content tokens that stay; an instance that keeps all of its content gets no merged token.
        content: tokens that may be pruned; valid tokens outside it are protected.
        weight: unnormalised merge weights (TIS), read where a token is merged.
        lengths: tokens of each instance before the step, on the CPU.
        gate: how surely each token is kept, for a straight-through gradient, see `Gate`; None = without.
    """
    device = keep.device
    b, n = keep.shape
    drop = content & ~keep
    pruned = drop.any(-1)
    if not bool(pruned.any()):
        return Selection(lengths=lengths)
    before = lengths.to(device)
    position = torch.arange(n, device=device)
    stay = (position < before[:, None]) & ~drop
    last = (content * position).amax(-1, keepdim=True)
    # Two slots a position, the token's own and one behind it for a merged token, give the output in order.
    slot = torch.stack([stay, (position == last) & pruned[:, None]], -1)
    chosen = slot.view(-1).nonzero().view(-1)
    token = chosen >> 1
    merged = (chosen & 1).nonzero().view(-1)
    gone = drop.view(-1).nonzero().view(-1)
    number = pruned.cumsum(0) - 1  # of an instance's merged token
    target = number.index_select(0, gone // n)
    raw = weight.reshape(-1).index_select(0, gone)
    total = raw.new_zeros(len(merged)).index_add(0, target, raw)
    gates = None
    if gate is not None:
        merges = pruned.index_select(0, token // n)
        free = (keep.view(-1).index_select(0, token) & merges & (chosen & 1 == 0)).nonzero().view(-1)
        where = token.index_select(0, free)
        beside = number.index_select(0, where // n)
        gates = Gate(free, beside, gate.reshape(-1).index_select(0, where))
    if b * n > (t := int(lengths.sum())):  # else padded positions are packed ones
        packed = padded_index(before, n, t)
        token, gone = packed.index_select(0, token), packed.index_select(0, gone)
    return Selection(
        lengths=(stay.sum(-1) + pruned).cpu(),
        index=token,
        merged=merged,
        source=gone,
        target=target,
        weight=raw / denominator(total).index_select(0, target),
        gate=gates,
    )
