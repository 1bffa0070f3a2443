"""Which heads and MLP channels leave a model: one ranking of all of them (after UPop, Shi et al., ICML 2023).

A structure is a head of an attention or a channel of an MLP. It goes by its mask, a factor of what it gives on: 1 = as
it was, 0 = as if it were not there.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FADE = 0.05  # of all cost: so far ahead of the share that is gone, masks begin to close
LEAST = 1e-3  # of a mask that is not closed, in half precision too


def standing(importance: Float[Tensor, " s"], group: Int[Tensor, " s"]) -> Float[Tensor, " s"]:
    """Importance of mean 0 and spread 1 within its group, so that all groups share a ranking; 0 where all are alike.

    Args:
        importance: of each structure; higher = kept.
        group: of like structures, of one tower and one kind, numbered from 0.
    """
    groups = int(group.max()) + 1
    importance = importance.double()
    count = torch.bincount(group, minlength=groups).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return (x.new_zeros(groups).index_add(0, group, x) / count)[group]

    centred = importance - mean(importance)
    spread = mean(centred.square()).sqrt()
    return torch.where(spread > 0, centred / spread.clamp(min=torch.finfo(torch.double).tiny), 0.0)


def fitting(price: Float[Tensor, " s"], budget: float) -> Bool[Tensor, " s"]:
    """Which of a row are bought, one after the other, each that what is left of the budget can pay.

    Args:
        price: of each, above 0.
        budget: to spend.
    """
    bought = torch.zeros(len(price), dtype=torch.bool, device=price.device)
    rest = torch.arange(len(price), device=price.device)
    while len(rest):
        spent = price[rest].cumsum(0)
        some = int((spent <= budget).sum())
        bought[rest[:some]] = True
        budget -= float(spent[some - 1]) if some else 0.0
        rest = rest[some:]  # the first of them is too dear
        rest = rest[price[rest] <= budget]
    return bought


def openings(
    score: Float[Tensor, " s"], cost: Float[Tensor, " s"], share: float, fade: float = FADE
) -> Float[Tensor, " s"]:
    """The masks at a share of the cost that is to be gone: 0 = gone, else at least `LEAST`.

    All stand in order, lowest score first. Those whose cost the share pays for are gone; of the rest, a structure that
    the share would reach if it were larger by x is open by `x / fade`, at most 1. So, as the share grows, every mask
    goes from 1 to 0 before its structure is counted as gone.

    Args:
        score: from `standing`; higher = kept.
        cost: multiply-accumulates of each.
        share: in [0, 1].
        fade: above 0.
    """
    order = score.argsort(stable=True)
    price = cost[order].double()
    reached, total = price.cumsum(0), float(price.sum())
    closing = ((reached - share * total) / (fade * total)).clamp(LEAST, 1.0)
    closing = closing.masked_fill(fitting(price, share * total), 0.0)
    return torch.empty_like(closing).scatter_(0, order, closing)
