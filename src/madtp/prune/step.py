"""One pruning step of one block: evidence -> decision. Methods differ only in how they decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.merge import Selection, select
from madtp.prune.packed import pad, padded_index
from madtp.prune.score import EPS, class_score, share, token_importance
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
        key: `[t, d]` keys of the block's attention, the mean over heads; None unless the method needs them.
        size: `[t]` original tokens that each stands for; None = one each, or the method does not need it.
        entered: `[b]` content tokens with which each instance entered the tower, on the CPU; None = as many as now.
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
    key: Float[Tensor, "t d"] | None = None
    size: Float[Tensor, " t"] | None = None
    entered: Int[Tensor, " b"] | None = None
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
        return max(self.lengths.tolist(), default=0)

    @cached_property
    def _lengths(self) -> Int[Tensor, " b"]:
        return self.lengths.to(self.device)

    @cached_property
    def _index(self) -> Int[Tensor, " m"]:
        return padded_index(self._lengths, self._n, len(self.column))

    def padded(self, values: Float[Tensor, "t *c"]) -> Float[Tensor, "b n *c"]:
        """`values` in the padded layout that scores are computed in, float32 at least."""
        return pad(_wide(values), self._lengths, self._n, lambda: self._index)

    @cached_property
    def content(self) -> Bool[Tensor, "b n"]:
        """Which padded positions hold a token that may be pruned."""
        position = torch.arange(self._n, device=self.device)
        return (position >= self.head) & (position < (self._lengths - self.tail)[:, None])

    @cached_property
    def claims(self) -> Float[Tensor, "b n k"]:
        """A of every token, padded."""
        return self.padded(self._affinity)

    @property
    def _affinity(self) -> Float[Tensor, "t k"]:
        assert self.affinity is not None, "the method needs the affinity to the semantic tokens"
        return self.affinity

    def class_scores(self) -> Float[Tensor, "b n"]:
        """S_cls of every token, padded."""
        return self.padded(class_score(_wide(self.class_row), _wide(self.output_norm)))

    def scores(self) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Float[Tensor, "b n"]]:
        """S_cls, S_self and S_tok of every token, padded."""
        seen = class_score(_wide(self.class_row), _wide(self.output_norm))
        packed = torch.stack([seen, _wide(self.column), _wide(self._affinity).amax(-1)])  # at once: fewer operators
        if self.content.numel() > packed.shape[1]:
            packed = packed.index_select(1, self._index)
        padded = packed.view(3, *self.content.shape)
        own, token = share(padded[1:], self.content)
        return padded[0], own, token

    def select(
        self, keep: Bool[Tensor, "b n"], weight: Float[Tensor, "b n"], gate: Float[Tensor, "b n"] | None = None
    ) -> Selection:
        """The content tokens that are not kept merged into one by their weights, see `madtp.prune.select`."""
        return select(keep, self.content, weight, self.lengths, self.tail, gate)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


@dataclass(frozen=True)
class Decision:
    """A step's result.

    Attributes:
        selection: which tokens stay, and which are merged.
        threshold: of each instance, where the method has one.
        merged: `[b]` merged tokens of each instance, on the CPU; None = one wherever tokens went.
        work: `[b]` multiply-accumulates of comparing tokens with each other, on the CPU; None = there was none.
        scores: padded, that it was made by, `[b, n]` by name, as `Record` has them.
    """

    selection: Selection
    threshold: Float[Tensor, " b"] | None = None
    merged: Int[Tensor, " b"] | None = None
    work: Int[Tensor, " b"] | None = None
    scores: Mapping[str, Float[Tensor, "b n"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A way to decide. `decide(evidence, strength, training)`; `strength` is the one knob of its compute budget.

    Attributes:
        name: as in configs and on the command line.
        knob: what `strength` is: "temperature" (higher prunes more, not strictly), "prune_share" (in [0, 1)),
            "distance" (1 - cosine, in (0, 2]), or "factor" (of the mean importance; above 0).
        guided: True if it needs the affinity to the semantic tokens.
        decide: evidence -> decision.
        bounds: `(low, high)` of useful strengths, for the budget search.
        needs: what else of a block it reads: "attention" (the statistics of the probabilities), "key", "size".
        pixels: True if it makes the picture smaller before the first block and lets the blocks be.
        weights: True if it takes heads and MLP channels out of the model and lets the tokens be.
        acts: `(tower, block, blocks of the tower)` -> whether it prunes there; None = everywhere.
    """

    name: str
    knob: str
    guided: bool
    decide: Callable[[Evidence, float, bool], Decision]
    bounds: tuple[float, float]
    needs: frozenset[str] = frozenset({"attention"})
    pixels: bool = False
    weights: bool = False
    acts: Callable[[str, int, int], bool] | None = None


def judge(
    evidence: Evidence, importance: Float[Tensor, "b n"], temperature: float, training: bool
) -> tuple[Bool[Tensor, "b n"], Float[Tensor, " b"], Float[Tensor, "b n"] | None]:
    """`TIS > theta`: which tokens stay, theta, and in training the gate of kept tokens (see `Gate`).

    The gate is of size `TIS / (|TIS| + |theta|)`, the denominator held fast.
    """
    with torch.no_grad():
        theta = threshold(evidence.claims, importance, evidence.content, temperature)
        keep = keep_above(importance, theta, evidence.content, evidence.fewest)
    gate = None
    if training and evidence.straight_through:
        size = importance.detach().abs() + theta.abs()[:, None]
        gate = evidence.straight_through * importance / (size + EPS)
    return keep, theta, gate


def madtp(evidence: Evidence, strength: float, training: bool = False) -> Decision:
    """Dynamic token pruning: keep `TIS > theta`, merge the rest by TIS. `strength` is the temperature tau.

    The scores learn through the merge weights and, in training, through a gate at kept tokens.
    """
    parts = evidence.scores()
    importance = token_importance(*parts)
    keep, theta, gate = judge(evidence, importance, strength, training)
    scores = dict(zip(("class", "self", "token"), parts, strict=True)) | {"importance": importance}
    return Decision(evidence.select(keep, importance, gate), theta, scores=scores)
