"""What a run did: tokens in and out of every pruning step, thresholds, and where every original token went."""

from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

from madtp.prune.record import Record


@dataclass(frozen=True)
class Provenance:
    """Where the original content tokens of `b` instances are after a block, packed over instances.

    Attributes:
        lengths: `[b]` original content tokens of each instance.
        owner: `[p]` index, among its instance's tokens after the block (pooled token = 0), of the token that holds it.
        share: `[p]` weight it carries there; 1 = still itself, less = merged with others, 0 = it was dropped.
    """

    lengths: Int[Tensor, " b"]
    owner: Int[Tensor, " p"]
    share: Float[Tensor, " p"]

    def of(self, instance: int) -> tuple[Tensor, Tensor]:
        """`owner` and `share` of one instance."""
        start = int(self.lengths[:instance].sum())
        stop = start + int(self.lengths[instance])
        return self.owner[start:stop], self.share[start:stop]

    def kept(self, instance: int) -> Bool[Tensor, " n"]:
        """`[n]` True for the tokens of one instance that are still themselves, each alone in the token that holds it.

        Not the same as a share of 1: merge weights may be negative, and then one of a merged token's can be above 1.
        """
        owner, _ = self.of(instance)
        return owner.bincount()[owner] == 1


@dataclass(frozen=True)
class BlockTrace:
    """One block of one tower, for `b` instances. Counts are of content tokens; a merged token counts as one.

    Attributes:
        tower: "vision", "text", or "match": the text tower's pass with cross-attention, in retrieval.
        block: index of the block, from 0.
        tokens_in: `[b]` content tokens before the pruning step.
        tokens_out: `[b]` content tokens after it.
        threshold: `[b]` theta, where the method has one.
        provenance: where the tower's input tokens are now, if it was asked for.
        record: what the step decided by, if the tower prunes and it was asked for (`recording`).
        merged: `[b]` merged tokens that the step made; None = one wherever tokens went.
        work: `[b]` multiply-accumulates of comparing tokens with each other; None = there was none.
        full: `[b]` content tokens that would have entered the tower, had its pictures not been made smaller; None =
            they were not.
        guided: False where the block was not meant to prune, and so no semantic token was asked.
    """

    tower: str
    block: int
    tokens_in: Int[Tensor, " b"]
    tokens_out: Int[Tensor, " b"]
    threshold: Float[Tensor, " b"] | None = None
    provenance: Provenance | None = None
    record: Record | None = None
    merged: Int[Tensor, " b"] | None = None
    work: Int[Tensor, " b"] | None = None
    full: Int[Tensor, " b"] | None = None
    guided: bool = True


@dataclass
class Trace:
    """All blocks of a forward, in order of execution, and what else its cost depends on.

    Attributes:
        blocks: one entry a block a tower, also where nothing was pruned.
        image_index: `[q]` for each text instance, the image instance it looks at; `[q, 2]` where it looks at two.
        decoder_tokens: `[q]` tokens pushed through the decoder for each text instance (all answers or steps added up).
        decoder_pairs: `[q]` query-key pairs of its self-attention.
        decoder_sequences: `[q]` times the keys and values of the text instance's states were computed.
        decoder_logits: `[q]` of those tokens, the ones whose logits were computed; None = all of them.
    """

    blocks: list[BlockTrace] = field(default_factory=list)
    image_index: Int[Tensor, "q *two"] | None = None
    decoder_tokens: Int[Tensor, " q"] | None = None
    decoder_pairs: Int[Tensor, " q"] | None = None
    decoder_sequences: Int[Tensor, " q"] | None = None
    decoder_logits: Int[Tensor, " q"] | None = None

    def tower(self, name: str) -> list[BlockTrace]:
        """The blocks of one tower, in order."""
        return [block for block in self.blocks if block.tower == name]

    def steps(self, instance: int = 0) -> list[tuple[str, int, int]]:
        """`(tower, content tokens in, out)` of one instance in order of execution."""
        return [(b.tower, int(b.tokens_in[instance]), int(b.tokens_out[instance])) for b in self.blocks]
