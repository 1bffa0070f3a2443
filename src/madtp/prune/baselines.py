"""Comparators that prune a fixed share of the content tokens in every block and merge what is pruned into one token."""

import torch

from madtp.prune.step import Decision, Evidence
from madtp.prune.threshold import keep_share


def class_attention(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Static top share by S_cls, the rest fused by it (after EViT, arXiv 2202.07800).

    `strength` is the share pruned a block.
    """
    content = evidence.content
    score = evidence.class_scores()
    keep = keep_share(score.detach(), content, strength, evidence.fewest)
    return Decision(evidence.select(keep, score), scores={"importance": score})


def random(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """A random share stays, the rest is averaged. `strength` is the share pruned a block.

    In training every instance draws anew. Otherwise the draw depends on the block and the position alone, so that
    an answer is the same alone and in any batch.
    """
    content = evidence.content
    b, n = content.shape
    if training:
        score = torch.rand(b, n, device=content.device)
    else:
        generator = torch.Generator().manual_seed(evidence.block + 1)
        # A draw of fixed size, then cut: the score at a position must not depend on the longest of the batch.
        score = torch.rand(max(n, 4096), generator=generator)[:n].to(content.device).expand(b, n)
    keep = keep_share(score, content, strength, evidence.fewest)
    return Decision(evidence.select(keep, torch.ones_like(score)))
