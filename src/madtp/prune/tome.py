"""Bipartite soft matching of tokens by their keys (after ToMe, Bolya et al., ICLR 2023, arXiv 2210.09461)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from madtp.prune.assign import assign
from madtp.prune.merge import Selection
from madtp.prune.step import Decision, Evidence
from madtp.prune.threshold import highest


def due(evidence: Evidence, share: float) -> Int[Tensor, " b"]:
    """`[b]` how many content tokens this block shall take from each instance, on the CPU: the same in every block.

    `share` of the tokens with which the instance entered the tower; what is no whole number is made up for in later
    blocks. No more than half of those that are there, and `fewest` stay.
    """
    now = evidence.lengths - evidence.head - evidence.tail
    each = share * (now if evidence.entered is None else evidence.entered).double()
    # plus a little: a tenth of 30 is 3, whatever float64 makes of it
    before, after = (torch.floor(each * block + 1e-6).long() for block in (evidence.block, evidence.block + 1))
    most = torch.minimum(now // 2, now - evidence.fewest).clamp(min=0)
    return torch.minimum(after - before, most)


def likeness(
    key: Float[Tensor, "b n d"], there: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b a c"], Float[Tensor, "b a"]]:
    """Cosines of the keys of A, every other token from the first on, with those of B, the rest; and A's highest.

    -inf to a token of B that takes no part; the highest of one of A that takes none is -inf.

    Args:
        key: of tokens in turn, two at least.
        there: tokens that take part.
    """
    key = normalize(key, dim=-1)
    if bool(there.all()):
        like = key[:, ::2] @ key[:, 1::2].transpose(1, 2)
        return like, like.amax(-1)
    # Padding repeats some other instance's token; were that not-a-number, adding -inf would leave it so.
    key.masked_fill_(~there[..., None], 0)
    absent = key.new_zeros(there.shape).masked_fill_(~there, float("-inf"))
    like = torch.baddbmm(absent[:, None, 1::2], key[:, ::2], key[:, 1::2].transpose(1, 2))
    return like, like.amax(-1) + absent[:, ::2]


def partners(like: Float[Tensor, "b a c"], goes: Bool[Tensor, "b a"]) -> Int[Tensor, " m"]:
    """Of each token of A that goes, in order, the number in B of the one most like it; of several the first.

    Asked of these alone, for a maximum with its place costs several times as much as one without.
    """
    return like[goes].max(-1).indices


def tome(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """The most similar pairs of every other token and one of the others become one, weighted by their sizes.

    The content tokens are dealt in turn to A and B. Each of A proposes to the token of B whose key is most like its
    own (cosine, mean over heads); the best `due` proposals are taken. `strength` is the share of the tokens with which
    an instance entered the tower that every block takes.
    """
    assert evidence.key is not None, "ToMe needs the keys"
    content, count = evidence.content, due(evidence, strength)
    if not bool(count.any()):
        return Decision(Selection(lengths=evidence.lengths))
    n = evidence.lengths - evidence.head - evidence.tail
    with torch.no_grad():
        key = evidence.padded(evidence.key)
        inner = slice(evidence.head, content.shape[1] - evidence.tail)
        a, b = (slice(evidence.head + i, inner.stop, 2) for i in (0, 1))
        like, best = likeness(key[:, inner], content[:, inner])
        goes = highest(best, count.to(best.device))
        position = torch.arange(content.shape[1], device=content.device)
        into = position.expand_as(content).clone()
        into[:, a][goes] = position[b][partners(like, goes)]
        size = torch.ones_like(key[..., 0]) if evidence.size is None else evidence.padded(evidence.size)
        selection, merged = assign(into, size, evidence.lengths)
    work = ((n + 1) // 2) * (n // 2) * evidence.key.shape[1]
    return Decision(selection, merged=merged, work=work * (count > 0))
