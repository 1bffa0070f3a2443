"""Merging of all tokens that are alike enough, however many an input has of them: ToMe by a threshold.

After dynamic token merging (DToMe of DyMU, Wang et al., arXiv 2504.17040). It needs no training.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.assign import assign
from madtp.prune.merge import Selection
from madtp.prune.packed import front, rows_at
from madtp.prune.step import Decision, Evidence
from madtp.prune.threshold import highest
from madtp.prune.tome import likeness, partners

ROUNDS = 3  # of matching in a block: one halves the tokens at most


def sees(tower: str, block: int, depth: int) -> bool:
    """The image tower alone: words that are alike are none too many."""
    return tower == "vision"


def match(
    key: Float[Tensor, "b n d"], there: Bool[Tensor, "b n"], farthest: float, fewest: int
) -> tuple[Int[Tensor, "b n"], Int[Tensor, " b"]]:
    """One round: which tokens go into which others.

    The tokens that are there are dealt in turn to A and B. Each of A proposes to the token of B whose key is most like
    its own; all proposals nearer than `farthest` are taken.

    Args:
        key: of every token.
        there: tokens that take part.
        farthest: cosine distance, 1 - cosine, in (0, 2].
        fewest: so many of an instance stay, where there are as many.

    Returns:
        Padded position of the token that each goes into, its own = it stays; and `[b]` comparisons of two keys, CPU.
    """
    b, n = there.shape
    position = torch.arange(n, device=key.device)
    into = position.expand(b, n).clone()
    count = there.sum(-1)
    order = front(there)
    if order.shape[1] < 2:  # nobody has a partner
        return into, torch.zeros(b, dtype=torch.long)
    like, best = likeness(rows_at(key, order), position[: order.shape[1]] < count[:, None])
    goes = 1 - best < farthest
    most = torch.minimum(count // 2, count - fewest).clamp(min=0)
    if bool((goes.sum(-1) > most).any()):
        goes &= highest(best, most)
    row, place = goes.nonzero(as_tuple=True)
    into[row, order[:, ::2][row, place]] = order[:, 1::2][row, partners(like, goes)]
    return into, (((count + 1) // 2) * (count // 2)).cpu()


def tome_dynamic(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """All pairs of ToMe's matching whose keys are nearer than `strength` become one, in `ROUNDS` rounds.

    `strength` is a cosine distance, the same in every block. A further round matches what the one before has left, each
    merged token by the mean key of what it holds. Averages are weighted by size, as in ToMe.
    """
    assert evidence.key is not None, "ToMe needs the keys"
    content = evidence.content
    b, n = content.shape
    if not n:
        return Decision(Selection(lengths=evidence.lengths))
    with torch.no_grad():
        key = evidence.padded(evidence.key)
        size = key.new_ones(b, n) if evidence.size is None else evidence.padded(evidence.size)
        position = torch.arange(n, device=key.device)
        first = torch.arange(b, device=key.device)[:, None] * n
        # of what each token holds; that it is the sum and not the mean is of no matter to cosines
        held = (key * size[..., None]).flatten(0, 1)
        into, compared = match(key, content, strength, evidence.fewest)
        lost = into != position
        for _ in range(1, ROUNDS):
            gone = lost.view(-1).nonzero().view(-1)
            if not len(gone):
                break
            held.index_add_(0, (into + first).view(-1)[gone], held[gone])
            # an instance that lost nothing would lose nothing again
            there = content & (into == position) & lost.any(-1, keepdim=True)
            step, again = match(held.view_as(key), there, strength, evidence.fewest)
            into, lost, compared = step.gather(1, into), step != position, compared + again
        selection, merged = assign(into, size, evidence.lengths)
    return Decision(selection, merged=merged, work=compared * evidence.key.shape[1])
