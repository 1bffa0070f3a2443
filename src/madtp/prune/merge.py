"""Applying a decision: kept tokens stay in order, all others of an instance become one merged token.

`Selection` is the decision alone, so that the same one is applied to features, to provenance, or to whatever else rides
along.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.packed import start_of
from madtp.prune.score import EPS


@dataclass(frozen=True)
class Selection:
    """Which packed tokens stay and which are merged, for `t` tokens of `b` instances going in and `u` coming out.

    Attributes:
        lengths: `[b]` tokens of each instance after the step, on the CPU (the step's one copy from the device).
        index: `[u]` packed input position each output token is copied from; None = nothing is pruned, input is output.
        merged: `[m]` positions in the output that hold a merged token instead of the copy.
        source: `[s]` packed input positions that are merged.
        target: `[s]` to which of the m merged tokens each goes.
        weight: `[s]` merge weights; those of one merged token sum to 1 (less the epsilon). Carries gradient.
    """

    lengths: Int[Tensor, " b"]
    index: Int[Tensor, " u"] | None = None
    merged: Int[Tensor, " m"] | None = None
    source: Int[Tensor, " s"] | None = None
    target: Int[Tensor, " s"] | None = None
    weight: Float[Tensor, " s"] | None = None

    def apply(self, values: Float[Tensor, "t c"]) -> Float[Tensor, "u c"]:
        """Kept rows copied, merged rows `sum_j weight[j] values[j]`."""
        if self.index is None:
            return values
        assert self.merged is not None and self.source is not None and self.target is not None
        assert self.weight is not None
        out = values.index_select(0, self.index)
        # Added up in the precision of the weights: a sum of hundreds of small shares is lost in bfloat16.
        weighted = values.index_select(0, self.source) * self.weight[:, None]
        merged = weighted.new_zeros(self.merged.shape[0], values.shape[1])
        # index_select, not values[...]: ten times faster on the CPU; scatter_add, not index_add: twice
        merged = merged.scatter_add(0, self.target[:, None].expand_as(weighted), weighted)
        return out.index_copy_(0, self.merged, merged.to(values.dtype))

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
) -> Selection:
    """Turn a keep mask into a `Selection`: `sum_j TIS[j] x[j] / (sum_j TIS[j] + 1e-8)` over what is not kept.

    The merged token stands right behind the last content token; protected tokens keep their places.

    Args:
        keep: content tokens that stay; an instance that keeps all of its content gets no merged token.
        content: tokens that may be pruned; valid tokens outside it are protected.
        weight: unnormalised merge weights (TIS), read where a token is merged.
        lengths: tokens of each instance before the step, on the CPU.
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
    last = (content * position).amax(-1)
    # Two slots a position, the token's own and one behind it for a merged token, give the output in order.
    slot = torch.zeros(b, n, 2, dtype=torch.bool, device=device)
    slot[..., 0] = stay
    slot[torch.arange(b, device=device), last, 1] = pruned
    chosen = slot.view(-1).nonzero().view(-1)
    token = chosen.div(2, rounding_mode="floor")
    shift = start_of(before) - torch.arange(b, device=device) * n  # padded position -> packed position
    merged = (chosen % 2 == 1).nonzero().view(-1)
    gone = drop.view(-1).nonzero().view(-1)
    instance = gone.div(n, rounding_mode="floor")
    target = (pruned.cumsum(0) - 1).index_select(0, instance)
    raw = weight.reshape(-1).index_select(0, gone)
    total = raw.new_zeros(merged.shape[0]).index_add(0, target, raw)
    return Selection(
        lengths=(stay.sum(-1) + pruned).cpu(),
        index=token + shift.index_select(0, token.div(n, rounding_mode="floor")),
        merged=merged,
        source=gone + shift.index_select(0, instance),
        target=target,
        weight=raw / (total.index_select(0, target) + EPS),
    )
