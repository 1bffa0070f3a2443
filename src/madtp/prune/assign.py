"""Selections in which tokens go into tokens of their own instance, several merged ones maybe, or are let go."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.merge import Selection
from madtp.prune.packed import padded_index, valid


def assign(
    into: Int[Tensor, "b n"], weight: Float[Tensor, "b n"], lengths: Int[Tensor, " b"]
) -> tuple[Selection, Int[Tensor, " b"]]:
    """Tokens that go into others. A token that receives some becomes, in its place, their weighted mean and its own.

    Args:
        into: padded position of the token that each goes into; its own = it stays. One that receives must stay.
        weight: unnormalised merge weights, read where tokens go and where they are received; their sum is above 0.
        lengths: tokens of each instance before the step, on the CPU.

    Returns:
        The selection, and `[b]` how many merged tokens each instance has, on the CPU.
    """
    b, n = into.shape
    inside = valid(lengths.to(into.device), n)
    moved = inside & (into != torch.arange(n, device=into.device))
    if not bool(moved.any()):
        return Selection(lengths=lengths), torch.zeros_like(lengths)
    row = torch.arange(b, device=into.device)[:, None]
    flat_into = (into + row * n).view(-1)
    stay = inside & ~moved
    receives = torch.zeros(b * n, dtype=torch.bool, device=into.device)
    receives[flat_into[moved.view(-1)]] = True
    gone = (moved.view(-1) | receives).nonzero().view(-1)
    number = receives.cumsum(0) - 1  # of a merged token
    target, order = number.index_select(0, flat_into.index_select(0, gone)).sort(stable=True)
    gone = gone.index_select(0, order)
    raw = weight.reshape(-1).index_select(0, gone)
    merged = (stay.view(-1).cumsum(0) - 1).index_select(0, receives.nonzero().view(-1))
    total = raw.new_zeros(len(merged)).index_add(0, target, raw)
    packed = padded_index(lengths.to(into.device), n, int(lengths.sum()))
    counts = torch.stack([stay.sum(-1), receives.view(b, n).sum(-1)]).cpu()
    selection = Selection(
        lengths=counts[0],
        index=packed.index_select(0, stay.view(-1).nonzero().view(-1)),
        merged=merged,
        source=packed.index_select(0, gone),
        target=target,
        weight=raw / total.index_select(0, target),
    )
    return selection, counts[1]


def drop(keep: Bool[Tensor, "b n"], content: Bool[Tensor, "b n"], lengths: Int[Tensor, " b"]) -> Selection:
    """Content tokens that are not kept go for good.

    Told as merging: they go with weight 0 into the instance's first token, which is protected and stays as it is. So a
    token that was let go has a share of 0 in the provenance.

    Args:
        keep: content tokens that stay.
        content: tokens that may go.
        lengths: tokens of each instance before the step, on the CPU.
    """
    into = torch.arange(keep.shape[1], device=keep.device).expand_as(keep).masked_fill(content & ~keep, 0)
    weight = torch.zeros(keep.shape, device=keep.device)
    weight[:, :1] = 1
    return assign(into, weight, lengths)[0]
