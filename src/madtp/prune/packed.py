"""Ragged batches without padding: tokens `[t, ...]` of all instances, one after another, and their lengths `[b]`."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


def start_of(lengths: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Packed position of each instance's first token."""
    return lengths.cumsum(0) - lengths


def valid(lengths: Int[Tensor, " b"], n: int) -> Bool[Tensor, "b n"]:
    """True where a padded `[b, n]` layout holds a token."""
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def padded_index(lengths: Int[Tensor, " b"], n: int, t: int) -> Int[Tensor, " m"]:
    """`[b * n]` packed position, of t, of every padded place; beyond an instance's length, that of some other token."""
    index = start_of(lengths)[:, None] + torch.arange(n, device=lengths.device)
    return index.clamp_(max=max(t - 1, 0)).view(-1)


def place_of(lengths: Int[Tensor, " b"], n: int, t: int) -> Int[Tensor, " t"] | None:
    """Padded position, of `b * n`, of every packed token, `t` in all; None where no instance has padding."""
    if len(lengths) * n == t:
        return None
    return torch.nonzero_static(valid(lengths, n).view(-1), size=t).view(-1)


def front(mask: Bool[Tensor, "b n"]) -> Int[Tensor, "b m"]:
    """Padded positions where it is True, in order; rows with fewer than m, the most of any, have others behind them."""
    most = int(mask.sum(-1).max()) if len(mask) else 0
    return (~mask).int().argsort(dim=-1, stable=True)[:, :most]


def rows_at(values: Shaped[Tensor, "b n d"], place: Int[Tensor, "b m"]) -> Shaped[Tensor, "b m d"]:
    """Of each instance the rows at these padded positions."""
    return values.gather(1, place[..., None].expand(-1, -1, values.shape[-1]))


def pad(
    values: Shaped[Tensor, "t ..."],
    lengths: Int[Tensor, " b"],
    n: int,
    index: Callable[[], Int[Tensor, " m"]] | None = None,
) -> Shaped[Tensor, "b n ..."]:
    """Packed to padded; what lies beyond an instance's length repeats some token and must be masked by the caller.

    Args:
        values: packed tokens, `t = lengths.sum()`.
        lengths: tokens of each instance, on the device of `values`.
        n: padded length, at least `lengths.max()`.
        index: gives `padded_index(lengths, n, t)`, for callers that keep it. Asked only where instances differ.
    """
    b = lengths.shape[0]
    if b * n == values.shape[0]:  # every instance has n tokens: padded and packed are the same memory
        return values.view(b, n, *values.shape[1:])
    places = padded_index(lengths, n, values.shape[0]) if index is None else index()
    return values.index_select(0, places).view(b, n, *values.shape[1:])


def unpad(padded: Shaped[Tensor, "b n ..."], lengths: Int[Tensor, " b"]) -> Shaped[Tensor, "t ..."]:
    """Padded to packed: the first `lengths[i]` rows of every instance, in order."""
    b, n = padded.shape[:2]
    flat = padded.reshape(b * n, *padded.shape[2:])
    keep = valid(lengths, n).view(-1)
    if bool(keep.all()):
        return flat
    return flat.index_select(0, keep.nonzero().view(-1))
