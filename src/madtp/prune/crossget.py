"""Complete-graph soft matching guided by cross tokens (after CrossGET, Shi et al., ICML 2024, arXiv 2305.17455)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from madtp.prune.assign import assign
from madtp.prune.merge import Selection
from madtp.prune.score import EPS
from madtp.prune.step import Decision, Evidence
from madtp.prune.threshold import highest
from madtp.prune.tome import due


def _mean(x: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    return x.masked_fill(~content, 0.0).sum(-1, keepdim=True) / content.sum(-1, keepdim=True).clamp(min=1)


def _spread(x: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    return _mean((x - _mean(x, content)).square(), content).sqrt()


def standing(claims: Float[Tensor, "b n k"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """How strongly some cross token claims each token, of mean 0 and spread 1 within an instance; higher = more."""
    best = claims.amax(-1).masked_fill(~content, 0.0)
    centred = best - _mean(best, content)
    # the spread of equal numbers has no gradient: under the root stands a little more
    return centred / (_mean(centred.square(), content) + EPS).sqrt()


def match(
    like: Float[Tensor, "b n n"],
    importance: Float[Tensor, "b n"],
    content: Bool[Tensor, "b n"],
    count: Int[Tensor, " b"],
) -> Int[Tensor, "b n"]:
    """`into`: where each token goes; itself = it stays.

    Tokens stand in order of how ready they are to go: likeness to the nearest other, less importance (brought to the
    spread of the likenesses). Each may go into tokens that stand behind it only, so that of two that would go into each
    other one stays. By the best they find there, less importance, `count` are chosen to go. They go into whichever of
    those that stay is most like them.

    Args:
        like: cosines of every two tokens.
        importance: of mean 0 and spread 1.
        content: which tokens take part.
        count: of each instance.
    """
    lowest = float("-inf")
    n = content.shape[1]
    position = torch.arange(n, device=like.device)
    like = like.masked_fill(~content[:, None] | (position[:, None] == position), lowest)
    nearest = like.amax(-1).masked_fill(~content, 0.0)
    toll = importance * _spread(nearest, content)
    ready = (nearest - toll).masked_fill(~content, lowest)
    order = ready.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, position.expand_as(order))
    behind = like.masked_fill(rank[:, None] <= rank[..., None], lowest).amax(-1)
    goes = highest((behind - toll).masked_fill(~content, lowest), count) & content
    target = like.masked_fill(goes[:, None], lowest).argmax(-1)
    return torch.where(goes, target, position)


def crossget(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Any token may go into any other that is like it; those that cross tokens claim stay, and weigh more.

    The semantic tokens are the cross tokens. The weights, `softmax` of the importance among those that become one,
    carry gradient. `strength` is the share of the tokens with which an instance entered the tower that a block takes.
    """
    assert evidence.key is not None, "CrossGET needs the keys"
    content, count = evidence.content, due(evidence, strength)
    if not bool(count.any()):
        return Decision(Selection(lengths=evidence.lengths))
    n = evidence.lengths - evidence.head - evidence.tail
    inside = slice(evidence.head, content.shape[1] - evidence.tail)
    importance = standing(evidence.claims[:, inside], content[:, inside])
    with torch.no_grad():
        key = normalize(evidence.padded(evidence.key)[:, inside], dim=-1)
        like = key @ key.transpose(1, 2)
        into = torch.arange(content.shape[1], device=content.device).expand(content.shape).clone()
        into[:, inside] = evidence.head + match(like, importance, content[:, inside], count.to(content.device))
    weight = torch.ones(content.shape, dtype=importance.dtype, device=content.device)
    weight = torch.cat([weight[:, : evidence.head], importance.exp(), weight[:, inside.stop :]], 1)
    selection, merged = assign(into, weight, evidence.lengths)
    return Decision(selection, merged=merged, work=n * n * evidence.key.shape[1] * (count > 0))
