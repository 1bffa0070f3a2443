"""Keeping what a block decided by, for whoever wants to look at it. Off by default, and then nothing is held.

`with recording():` asks for it; every `BlockTrace` of a tower that starts in the block then has its `record`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.packed import unpad
from madtp.prune.step import Decision, Evidence

_asked: ContextVar[bool] = ContextVar("madtp_recording", default=False)


@contextmanager
def recording() -> Iterator[None]:
    """Within the block, in this thread, traces come with a `Record` of every pruning step."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def is_recording() -> bool:
    """Whether records are asked for here."""
    return _asked.get()


@dataclass(frozen=True)
class Record:
    """What one pruning step decided by: the content tokens going in, packed over `b` instances, on the CPU.

    Attributes:
        lengths: `[b]` content tokens of each instance.
        kept: `[t]` True for a token that stays itself, False for one that is merged. Where there is a threshold, one
            above it that others are merged into is kept.
        scores: `[t]` by name, those that the method has: "class", "self", "token" (S_cls, S_self, S_tok), "importance"
            (TIS, or what the method ranks by).
        affinity: `[t, k]` A; None for methods without guidance.
        head: protected tokens in front of the content.
    """

    lengths: Int[Tensor, " b"]
    kept: Bool[Tensor, " t"]
    scores: Mapping[str, Tensor]
    affinity: Float[Tensor, "t k"] | None = None
    head: int = 1

    def of(self, instance: int) -> "Record":
        """That of one instance alone."""
        start = int(self.lengths[:instance].sum())
        part = slice(start, start + int(self.lengths[instance]))
        affinity = None if self.affinity is None else self.affinity[part]
        scores = {name: score[part] for name, score in self.scores.items()}
        return Record(self.lengths[instance : instance + 1], self.kept[part], scores, affinity, self.head)


@torch.no_grad()
def record(evidence: Evidence, decision: Decision) -> Record:
    """The record of a step, from what was decided on and what was decided."""
    content = evidence.content
    inside = unpad(content, evidence.lengths.to(evidence.device))
    kept = torch.ones_like(inside)
    selection = decision.selection
    if selection.source is not None:
        kept[selection.source] = False
    if decision.threshold is not None and decision.merged is not None and selection.index is not None:
        kept[selection.index[selection.merged]] = True  # above the threshold, though others were merged into it
    return Record(
        lengths=evidence.lengths - evidence.head - evidence.tail,
        kept=kept[inside].cpu(),
        scores={name: score[content].float().cpu() for name, score in decision.scores.items()},
        affinity=None if evidence.affinity is None else evidence.affinity[inside].float().cpu(),
        head=evidence.head,
    )
