"""MADTP's choice of tokens, merged into what is most like them: not in the paper.

Which tokens stay is decided as in MADTP. What goes is not made one token an instance: each goes into the kept token
that is most like it, by the keys of the block's attention (as in token squeezing: TPS, Wei et al., CVPR 2023), weighted
by the tokens that it stands for; and these sizes count wherever tokens are attended to (proportional attention: ToMe,
Bolya et al., ICLR 2023).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from madtp.prune.assign import assign
from madtp.prune.packed import front, rows_at
from madtp.prune.score import EPS, token_importance
from madtp.prune.step import Decision, Evidence, judge

SLOPE = 3.0  # of the merge weight's sigmoid


def nearest(key: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"], goes: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Padded position of the kept token whose key is most like its own, for every token that goes; else its own.

    Args:
        key: of every token.
        keep: tokens that may receive; of an instance where some go, there is one at least.
        goes: tokens that look for one.
    """
    key = normalize(key, dim=-1)
    movers, stayers = front(goes), front(keep)
    likeness = rows_at(key, movers) @ rows_at(key, stayers).transpose(1, 2)
    likeness = likeness.masked_fill(~keep.gather(1, stayers)[:, None], -torch.inf)
    into = torch.arange(key.shape[1], device=key.device).repeat(len(key), 1)
    if stayers.shape[1]:  # a padded mover goes where it would, and is not asked for
        into.scatter_(1, movers, stayers.gather(1, likeness.argmax(-1)))
    return torch.where(goes, into, torch.arange(key.shape[1], device=key.device))


def merge_weight(
    importance: Float[Tensor, "b n"], theta: Float[Tensor, " b"], size: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """`size sigmoid(3 (TIS / |theta| - 1))`: above 0, the more the surer a token is kept. The scores learn by it."""
    return size * (SLOPE * (importance / (theta.abs() + EPS)[:, None] - 1)).sigmoid()


def madtp_nearest(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Keep `TIS > theta`, merge each other token into the kept one most like it. `strength` is the temperature tau."""
    assert evidence.key is not None and evidence.size is not None, "it needs the keys and sizes"
    content = evidence.content
    parts = evidence.scores()
    importance = token_importance(*parts)
    keep, theta, _ = judge(evidence, importance, strength, training)
    goes = content & ~keep
    with torch.no_grad():
        into = nearest(evidence.padded(evidence.key), keep, goes)
    weight = merge_weight(importance, theta, evidence.padded(evidence.size))
    selection, merged = assign(into, weight, evidence.lengths)
    compared = (goes.sum(-1) * keep.sum(-1)).cpu()
    scores = dict(zip(("class", "self", "token"), parts, strict=True)) | {"importance": importance}
    return Decision(selection, theta, merged=merged, work=compared * evidence.key.shape[1], scores=scores)
