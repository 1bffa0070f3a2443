"""Ragged batches without padding: tokens `[t, ...]` of all instances, one after another, and their lengths `[b]`."""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


def start_of(lengths: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Packed position of each instance's first token."""
    return lengths.cumsum(0) - lengths


def valid(lengths: Int[Tensor, " b"], n: int) -> Bool[Tensor, "b n"]:
    """True where a padded `[b, n]` layout holds a token."""
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def pad(values: Shaped[Tensor, "t ..."], lengths: Int[Tensor, " b"], n: int) -> Shaped[Tensor, "b n ..."]:
    """Packed to padded; what lies beyond an instance's length repeats some token and must be masked by the caller.

    Args:
        values: packed tokens, `t = lengths.sum()`.
        lengths: tokens of each instance, on the device of `values`.
        n: padded length, at least `lengths.max()`.
    """
    b = lengths.shape[0]
    if b * n == values.shape[0]:  # every instance has n tokens: padded and packed are the same memory
        return values.view(b, n, *values.shape[1:])
    position = start_of(lengths)[:, None] + torch.arange(n, device=lengths.device)
    position = position.clamp_(max=max(values.shape[0] - 1, 0))
    return values.index_select(0, position.view(-1)).view(b, n, *values.shape[1:])


def unpad(padded: Shaped[Tensor, "b n ..."], lengths: Int[Tensor, " b"]) -> Shaped[Tensor, "t ..."]:
    """Padded to packed: the first `lengths[i]` rows of every instance, in order."""
    b, n = padded.shape[:2]
    flat = padded.reshape(b * n, *padded.shape[2:])
    keep = valid(lengths, n).view(-1)
    if bool(keep.all()):
        return flat
    return flat.index_select(0, keep.nonzero().view(-1))
