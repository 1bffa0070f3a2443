"""Wrong partners for image-text matching."""

import torch
from torch import Tensor


def draw_negatives(logits: Tensor, same: Tensor, draw: Tensor) -> Tensor:
    """`[b]` a column of `logits [b, n]` for each row, with the probability of its softmax over those not `same`.

    Args:
        logits: similarities, higher = drawn more often.
        same: `[b, n]` columns that must not be drawn; where a row has no other, the result is -1.
        draw: `[b]` float32 uniform in [0, 1), CPU.
    """
    # masked first: the weights of the others stay what they were to each other, and do not all underflow
    weights = logits.masked_fill(same, -torch.inf).double().softmax(1).cpu()
    up_to = weights.cumsum(1)
    column = torch.searchsorted(up_to, draw.double()[:, None] * up_to[:, -1:], right=True)[:, 0]
    column = column.clamp(max=logits.shape[1] - 1)  # NaN: some column, so that the loss can be NaN and be told of
    return column.masked_fill(same.all(1).cpu(), -1)
