"""One pruning step of one block: evidence -> decision. Methods differ only in how they decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.merge import Selection, select
from madtp.prune.packed import pad, padded_index, valid
from madtp.prune.score import EPS, class_score, self_score, token_importance, token_score
from madtp.prune.threshold import keep_above, threshold


@dataclass(frozen=True)
class Evidence:
    """What a block offers to decide on: packed, `t` tokens of `b` instances, protected tokens included.

    Attributes:
        lengths: `[b]` tokens of each instance, on the CPU.
        class_row: `[t, h]` attention probability of the pooled token's query at each token.
        output_norm: `[t, h]` norm of each head's attention output at each token.
        column: `[t]` `sum_i max_h P[h,i,j]` over content queries i.
        affinity: `[t, k]` A of the block's input tokens; None for methods without guidance.
        head: protected tokens at the front of each instance (the pooled token; CLIP text: BOT).
        tail: protected tokens at its end (CLIP text: EOT, its pooled token).
        fewest: an instance that would keep fewer content tokens is left whole.
        block: index of the block.
        straight_through: in training, weight of the gradient that scores get through tokens that are kept.
    """

    lengths: Int[Tensor, " b"]
    class_row: Float[Tensor, "t h"]
    output_norm: Float[Tensor, "t h"]
    column: Float[Tensor, " t"]
    affinity: Float[Tensor, "t k"] | None
    head: int = 1
    tail: int = 0
    fewest: int = 1
    block: int = 0
    straight_through: float = 0.0

    @property
    def device(self) -> torch.device:
        return self.column.device

    @cached_property
    def _n(self) -> int:
        return int(self.lengths.max()) if len(self.lengths) else 0

    @cached_property
    def _lengths(self) -> Int[Tensor, " b"]:
        return self.lengths.to(self.device)

    @cached_property
    def _index(self) -> Int[Tensor, " m"]:
        return padded_index(self._lengths, self._n, len(self.column))

    def padded(self, values: Float[Tensor, "t *c"]) -> Float[Tensor, "b n *c"]:
        """`values` in the padded layout that scores are computed in, float32 at least."""
        values = values if values.dtype == torch.float64 else values.float()
        return pad(values, self._lengths, self._n, self._index)

    def content(self) -> Bool[Tensor, "b n"]:
        """Which padded positions hold a token that may be pruned."""
        mask = valid(self._lengths - self.tail, self._n)
        mask[:, : self.head] = False
        return mask

    def class_scores(self) -> Float[Tensor, "b n"]:
        """S_cls of every token, padded."""
        return class_score(self.padded(self.class_row), self.padded(self.output_norm))


@dataclass(frozen=True)
class Decision:
    """A step's result: the selection, and the threshold of each instance where the method has one.

    `scores` are the padded scores it was made by, `[b, n]` by name, as `Record` has them.
    """

    selection: Selection
    threshold: Float[Tensor, " b"] | None = None
    scores: Mapping[str, Float[Tensor, "b n"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A way to decide. `decide(evidence, strength, training)`; `strength` is the one knob of its compute budget.

    Attributes:
        name: as in configs and on the command line.
        knob: what `strength` is: "temperature" (higher prunes more, not strictly) or "prune_share" (in [0, 1)).
        guided: True if it needs the affinity to the semantic tokens.
        decide: evidence -> decision.
        bounds: `(low, high)` of useful strengths, for the budget search.
    """

    name: str
    knob: str
    guided: bool
    decide: Callable[[Evidence, float, bool], Decision]
    bounds: tuple[float, float]


def madtp(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Dynamic token pruning: keep `TIS > theta`, merge the rest by TIS. `strength` is the temperature tau.

    The scores learn through the merge weights and, in training, through a gate at kept tokens (see `Gate`), of size
    `TIS / (|TIS| + |theta|)`, the denominator held fast.
    """
    assert evidence.affinity is not None, "MADTP needs the affinity to the semantic tokens"
    content = evidence.content()
    affinity = evidence.padded(evidence.affinity)
    parts = {
        "class": evidence.class_scores(),
        "self": self_score(evidence.padded(evidence.column), content),
        "token": token_score(affinity.amax(-1), content),
    }
    importance = token_importance(parts["class"], parts["self"], parts["token"])
    with torch.no_grad():
        theta = threshold(affinity, importance, content, strength)
        keep = keep_above(importance, theta, content, evidence.fewest)
    gate = None
    if training and evidence.straight_through:
        size = importance.detach().abs() + theta.abs()[:, None]
        gate = evidence.straight_through * importance / (size + EPS)
    selection = select(keep, content, importance, evidence.lengths, gate)
    return Decision(selection, theta, parts | {"importance": importance})
