"""Whom to keep: above the learnable threshold of dynamic token pruning (MADTP, section 3.3), or so many."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def threshold(
    affinity: Float[Tensor, "b n k"],
    importance: Float[Tensor, "b n"],
    content: Bool[Tensor, "b n"],
    temperature: float,
) -> Float[Tensor, " b"]:
    """`theta = min_k sum_j softmax_j(A[j,k] / tau) TIS[j]` of every instance.

    Args:
        affinity: A, content tokens against semantic tokens.
        importance: TIS; higher = kept.
        content: which tokens take part.
        temperature: tau > 0. tau -> infinity gives the mean TIS; the number kept is not monotone in tau.
    """
    outside = ~content
    weight = torch.softmax(_hide(affinity / temperature, outside, row_by_row=affinity.is_cpu), dim=1)
    return torch.bmm(importance.masked_fill(outside, 0.0)[:, None], weight).amin(-1)[:, 0]


def _hide(logits: Float[Tensor, "b n k"], outside: Bool[Tensor, "b n"], row_by_row: bool) -> Float[Tensor, "b n k"]:
    """The lowest number at tokens outside, in place or not.

    On the CPU row by row: `masked_fill_` looks at every number, which takes up to ten times as long. A GPU would have
    to be asked how many rows there are.
    """
    lowest = torch.finfo(logits.dtype).min
    if not row_by_row:
        return logits.masked_fill_(outside[..., None], lowest)
    logits = logits.contiguous()
    logits.flatten(0, 1).index_fill_(0, outside.reshape(-1).nonzero().view(-1), lowest)
    return logits


def keep_above(
    importance: Float[Tensor, "b n"], theta: Float[Tensor, " b"], content: Bool[Tensor, "b n"], fewest: int = 1
) -> Bool[Tensor, "b n"]:
    """Content tokens with `TIS > theta`; all of an instance's where too few stay, or too few go to be merged.

    With n content tokens of which m stay, an instance is left whole if `m < fewest` or `n - m <= 1`.

    Args:
        fewest: 1 in the method; 2 in the public code's CLIP image tower.
    """
    keep = (importance > theta[:, None]) & content
    m, n = keep.sum(-1), content.sum(-1)
    whole = (m < fewest) | (n - m <= 1)
    return torch.where(whole[:, None], content, keep)


def highest(score: Float[Tensor, "b n"], count: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """The `count` highest of each row; ties by position."""
    order = score.argsort(dim=-1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    return rank < count[:, None]


def keep_share(
    score: Float[Tensor, "b n"], content: Bool[Tensor, "b n"], prune_share: float, fewest: int = 1
) -> Bool[Tensor, "b n"]:
    """The highest `ceil((1 - prune_share) n)` content tokens of each instance, at least `fewest`; ties by position.

    An instance of which one token would go is left whole.
    """
    n = content.sum(-1)
    # less a little: 0.72 * 75 is 54, whatever float32 makes of it
    m = torch.ceil((1 - prune_share) * n - 1e-4).long().clamp(min=fewest)
    m = torch.where(n - m <= 1, n, m)
    return highest(score.masked_fill(~content, float("-inf")), m) & content
