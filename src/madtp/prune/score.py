"""Token importance scores (TIS) of one block, for instances padded to `n` tokens (MADTP, section 3.3).

Every score is one number a token, higher = kept, and means something at content tokens only. The shares (`self_score`,
`token_score`) ignore what stands elsewhere and are 0 there.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPS = 1e-8
MAD_TO_DEVIATION = 1.4826  # of normally distributed numbers


def denominator(total: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """`total + 1e-8`, as published, and never 0: a sum of scores may be negative, -1e-8 too."""
    total = total + EPS
    return total.masked_fill_(total == 0, EPS)


def class_score(class_row: Float[Tensor, "... h"], output_norm: Float[Tensor, "... h"]) -> Float[Tensor, "..."]:
    """`S_cls[j] = sum_h P[h,0,j] w[h,j]`: attention from the pooled token, heads weighted by their output's norm at j.

    Args:
        class_row: `P[h, pooled, j]`, attention probabilities of the pooled token's query.
        output_norm: `|o[h, j]|`, norm of each head's attention output before the projection.
    """
    weight = output_norm / (output_norm.sum(-1, keepdim=True) + EPS)
    return (class_row * weight).sum(-1)


def share(score: Float[Tensor, "*s b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "*s b n"]:
    """Each content token's part of its instance's sum over content; 0 elsewhere."""
    score = torch.where(content, score, 0.0)
    return score / denominator(score.sum(-1, keepdim=True))


def self_score(column: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """`S_self`: attention content tokens pay to token j (`sum_i max_h P[h,i,j]`), as a share of the instance's sum."""
    return share(column, content)


def token_score(best: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """`S_tok`: how strongly some semantic token claims token j (`max_k A[j,k]`), as a share of the instance's sum.

    The sum can be negative; the published models live with that, so it is kept as it is.
    """
    return share(best, content)


def _median(x: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
    """Of an instance's content tokens; of an even number the lower one."""
    order = x.masked_fill(~content, float("inf")).sort(-1).values
    middle = (content.sum(-1, keepdim=True) - 1).clamp(min=0) // 2
    return order.gather(-1, middle).masked_fill(~content.any(-1, keepdim=True), 0.0)


def robust_token_score(best: Float[Tensor, "b n"], content: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """`S_tok` whose sum cannot come near 0: a share of `sigmoid((best - median) / (1.4826 MAD))`.

    MAD is the median distance from the median; where it is 0, the mean distance stands in, and 1 where that is 0 too.
    Both are held fast in backward: a median's gradient would fall on the one token that it is.
    """
    best = best.masked_fill(~content, 0.0)
    with torch.no_grad():
        centre = _median(best, content)
        far = (best - centre).abs().masked_fill(~content, 0.0)
        mean = far.sum(-1, keepdim=True) / content.sum(-1, keepdim=True).clamp(min=1)
        spread = MAD_TO_DEVIATION * _median(far, content)
        spread = torch.where(spread > 0, spread, torch.where(mean > 0, mean, 1.0))
    return share(((best - centre) / spread).sigmoid(), content)


def token_importance(
    class_score: Float[Tensor, "b n"], self_score: Float[Tensor, "b n"], token_score: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """`TIS = (S_cls + S_self + S_tok) / 3`; higher = kept."""
    return (class_score + self_score + token_score) / 3
