"""Comparators: other ways of deciding behind the same step, and the table of all methods.

Both prune a fixed share of the content tokens in every block and merge what is pruned into one token.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from madtp.prune.merge import select
from madtp.prune.step import Decision, Evidence, Method, madtp


def _keep_top(
    score: Float[Tensor, "b n"], content: Bool[Tensor, "b n"], prune_share: float, fewest: int
) -> Bool[Tensor, "b n"]:
    """The highest `ceil((1 - prune_share) n)` content tokens of each instance, at least `fewest`; ties by position.

    An instance of which one token would go is left whole.
    """
    n = content.sum(-1)
    # less a little: 0.72 * 75 is 54, whatever float32 makes of it
    m = torch.ceil((1 - prune_share) * n - 1e-4).long().clamp(min=fewest)
    m = torch.where(n - m <= 1, n, m)
    order = score.masked_fill(~content, float("-inf")).argsort(dim=-1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    return (rank < m[:, None]) & content


def class_attention(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Static top share by S_cls, the rest fused by it (after EViT, arXiv 2202.07800).

    `strength` is the share pruned a block.
    """
    content = evidence.content()
    score = evidence.class_scores()
    keep = _keep_top(score.detach(), content, strength, evidence.fewest)
    return Decision(select(keep, content, score, evidence.lengths), scores={"importance": score})


def random(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """A random share stays, the rest is averaged. `strength` is the share pruned a block.

    In training every instance draws anew. Otherwise the draw depends on the block and the position alone, so that
    an answer is the same alone and in any batch.
    """
    content = evidence.content()
    b, n = content.shape
    if training:
        score = torch.rand(b, n, device=content.device)
    else:
        generator = torch.Generator().manual_seed(evidence.block + 1)
        # A draw of fixed size, then cut: the score at a position must not depend on the longest of the batch.
        score = torch.rand(max(n, 4096), generator=generator)[:n].to(content.device).expand(b, n)
    keep = _keep_top(score, content, strength, evidence.fewest)
    return Decision(select(keep, content, torch.ones_like(score), evidence.lengths))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("madtp", "temperature", True, madtp, (0.02, 4096.0)),
        Method("class_attention", "prune_share", False, class_attention, (0.005, 0.95)),
        Method("random", "prune_share", False, random, (0.005, 0.95)),
    )
}
