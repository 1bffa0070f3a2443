"""MADTP with one part taken out or changed: each shows what that part is worth."""

import torch
from jaxtyping import Float
from torch import Tensor

from madtp.prune.assign import drop
from madtp.prune.score import robust_token_score, self_score, token_importance, token_score
from madtp.prune.step import Decision, Evidence, judge
from madtp.prune.threshold import highest, keep_above, keep_share


def _importance(evidence: Evidence) -> Float[Tensor, "b n"]:
    """TIS."""
    return token_importance(*evidence.scores())


def _without(part: int, evidence: Evidence, strength: float, training: bool) -> Decision:
    scores = (  # one by one: what is left out gets no gradient, not even one of zeros
        evidence.class_scores,
        lambda: self_score(evidence.padded(evidence.column), evidence.content),
        lambda: token_score(evidence.claims.amax(-1), evidence.content),
    )
    first, second = (score() for i, score in enumerate(scores) if i != part)
    importance = (first + second) / 2
    keep, theta, gate = judge(evidence, importance, strength, training)
    return Decision(evidence.select(keep, importance, gate), theta, scores={"importance": importance})


def without_class(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """TIS is the mean of S_self and S_tok. `strength` is the temperature."""
    return _without(0, evidence, strength, training)


def without_self(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """TIS is the mean of S_cls and S_tok. `strength` is the temperature."""
    return _without(1, evidence, strength, training)


def without_token(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """TIS is the mean of S_cls and S_self; the threshold is guided still. `strength` is the temperature."""
    return _without(2, evidence, strength, training)


def robust(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """S_tok by a robust normalisation, so that no sum near 0 or below it divides it. `strength` is the temperature."""
    content = evidence.content
    own = self_score(evidence.padded(evidence.column), content)
    parts = evidence.class_scores(), own, robust_token_score(evidence.claims.amax(-1), content)
    importance = token_importance(*parts)
    keep, theta, gate = judge(evidence, importance, strength, training)
    scores = dict(zip(("class", "self", "token"), parts, strict=True)) | {"importance": importance}
    return Decision(evidence.select(keep, importance, gate), theta, scores=scores)


def unguided(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """No semantic tokens: TIS is the mean of S_cls and S_self, the threshold `strength` times its mean.

    The threshold is dynamic as MADTP's, which goes to the mean of TIS as its temperature rises.
    """
    content = evidence.content
    importance = (evidence.class_scores() + self_score(evidence.padded(evidence.column), content)) / 2
    with torch.no_grad():
        count = content.sum(-1).clamp(min=1)
        theta = strength * importance.masked_fill(~content, 0.0).sum(-1) / count
        keep = keep_above(importance, theta, content, evidence.fewest)
    return Decision(evidence.select(keep, importance), theta, scores={"importance": importance})


def static(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """A fixed share by TIS instead of a threshold. `strength` is the share pruned a block."""
    importance = _importance(evidence)
    keep = keep_share(importance.detach(), evidence.content, strength, evidence.fewest)
    return Decision(evidence.select(keep, importance), scores={"importance": importance})


def dropping(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """What is pruned is lost. `strength` is the temperature. The scores learn nothing from the task then."""
    importance = _importance(evidence)
    keep, theta, _ = judge(evidence, importance, strength, training=False)
    none = torch.zeros_like(evidence.lengths)
    return Decision(
        drop(keep, evidence.content, evidence.lengths), theta, merged=none, scores={"importance": importance}
    )


def batch_max(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Every instance keeps as many as the one that keeps most, as the public code does. `strength` is the temperature.

    An answer then depends on its batch.
    """
    importance = _importance(evidence)
    keep, theta, gate = judge(evidence, importance, strength, training)
    content = evidence.content
    with torch.no_grad():
        n = content.sum(-1)
        # of the pruned ones: one that is too short to be pruned does not set the number
        m = torch.where(keep.sum(-1) < n, keep.sum(-1), 0).max().expand_as(n)
        m = torch.where((m < 1) | (n - m <= 1), n, m)
        keep = highest(importance.detach().masked_fill(~content, float("-inf")), m) & content
    return Decision(evidence.select(keep, importance, gate), theta, scores={"importance": importance})
