"""Pruning and merging of image tokens in stages, guided by language (after ELIP, Guo et al., arXiv 2309.16738)."""

from madtp.prune.score import self_score, token_score
from madtp.prune.step import Decision, Evidence
from madtp.prune.threshold import keep_share

STAGES = 4


def ends_stage(tower: str, block: int, depth: int) -> bool:
    """Whether a stage of the image tower ends with this block: `STAGES`, as even as can be, or as many as blocks."""
    return tower == "vision" and STAGES * (block + 1) // depth > STAGES * block // depth


def elip(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """At the end of each of four stages of the image tower (`ends_stage`), a fixed share of its tokens becomes one.

    A token's score is the mean of two shares: the attention the pooled token pays it, and how strongly language claims
    it. No image tower here has seen the text, so the semantic tokens, which both modalities share, speak for it.
    `strength` is the share pruned at a stage's end. Text is left whole.
    """
    content = evidence.content
    seen, said = self_score(evidence.class_scores(), content), token_score(evidence.claims.amax(-1), content)
    score = (seen + said) / 2
    keep = keep_share(score.detach(), content, strength, evidence.fewest)
    return Decision(evidence.select(keep, score), scores={"importance": score})
