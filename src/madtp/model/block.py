"""What every block of every tower shares: guidance before attention, the pruning step after, the record of both."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from madtp.model.attention import Rows, Statistics, exact
from madtp.model.linear import FastLinear, linear
from madtp.model.ragged import Ragged
from madtp.prune import (
    BlockTrace,
    Decision,
    Evidence,
    Method,
    Provenance,
    Selection,
    Trace,
    downsample,
    is_recording,
    record,
    semantic_feature,
)


class Guidance(nn.Module):
    """The semantic tokens, and a map into their width where a tower's differs (MADTP, section 3.2).

    Args:
        count: K.
        width: D.
        vision_width: width of the image tower's tokens; a `Linear` maps them if it is not D.
    """

    def __init__(self, count: int, width: int, vision_width: int) -> None:
        super().__init__()
        self.semantic_tokens = nn.Parameter(torch.empty(count, width))
        self.vision_map = nn.Linear(vision_width, width) if vision_width != width else None

    def query_map(self, tower: str, block: int) -> nn.Module | None:
        """The map of a tower's tokens into the semantic tokens' width, before a block; None = identity."""
        return self.vision_map if tower == "vision" else None


class TokenMap(FastLinear):
    """A linear map of tokens whose fresh weights keep their size (see `Pruned._init_weights`)."""


class BlockGuidance(Guidance):
    """The semantic tokens, and a map into their width for every block of both towers, as the method has it for CLIP.

    Args:
        count: K.
        width: D.
        vision: width and number of blocks of the image tower.
        text: the same of the text tower.
    """

    def __init__(self, count: int, width: int, vision: tuple[int, int], text: tuple[int, int]) -> None:
        super().__init__(count, width, vision_width=width)
        self.vision_maps = nn.ModuleList(TokenMap(vision[0], width) for _ in range(vision[1]))
        self.text_maps = nn.ModuleList(TokenMap(text[0], width) for _ in range(text[1]))

    def query_map(self, tower: str, block: int) -> nn.Module:
        """The map of a tower's tokens into the semantic tokens' width, before a block."""
        return (self.vision_maps if tower == "vision" else self.text_maps)[block]


@dataclass
class Pruner:
    """One tower's pruning during one forward.

    Attributes:
        tower: "vision" or "text".
        trace: receives one entry a block.
        method: how to decide; None = dense.
        strength: the method's knob.
        semantic: `[k, d]` semantic tokens.
        query_map: block -> map of its tokens into width d; None, or a map that is None = identity.
        gather: collect the semantic feature F, for the alignment loss.
        provenance: record where every original token is after each block.
        record: keep what every block decided by.
        training: passed on to the method.
        straight_through: passed on to the method.
        rows: which tokens are protected.
        fewest: an instance that would keep fewer content tokens in a block is left whole there.
        first_block: the first that prunes.
        depth: blocks of the tower.
        feature: `[b, k, d]` sum of F over the blocks so far.
        size: `[t]` original tokens that each token stands for, where the method needs it; None = one each.
        full: content tokens of an instance whose picture was made smaller, before that; None = it was not.
    """

    tower: str
    trace: Trace
    method: Method | None = None
    strength: float | None = None
    semantic: Tensor | None = None
    query_map: Callable[[int], Callable[[Tensor], Tensor] | None] | None = None
    gather: bool = False
    provenance: bool = False
    record: bool = field(default_factory=is_recording)
    training: bool = False
    straight_through: float = 0.0
    rows: Rows = field(default_factory=Rows)
    fewest: int = 1
    first_block: int = 0
    depth: int = 1
    feature: Tensor | None = None
    size: Tensor | None = None
    full: int | None = None
    _where: tuple[Tensor, Tensor, Tensor] | None = None
    _entered: Tensor | None = None

    def acting(self, block: int) -> Method | None:
        """The method, if it prunes in this block."""
        method = self.method
        if method is None or method.pixels or method.weights or self.strength is None or block < self.first_block:
            return None
        return method if method.acts is None or method.acts(self.tower, block, self.depth) else None

    def wants(self, block: int) -> Rows | None:
        """The statistics a block's attention must give; None if its method reads none."""
        method = self.acting(block)
        return self.rows if method is not None and "attention" in method.needs else None

    def mean_key(self, block: int, key: Tensor) -> Tensor | None:
        """`[t, d]` the mean over heads of a block's keys `[t, h, d]`, if its method reads it."""
        method = self.acting(block)
        return key.mean(1) if method is not None and "key" in method.needs else None

    def bias(self) -> Tensor | None:
        """`[t]` what a key's scores get more: the logarithm of the tokens it stands for (ToMe); None = nothing."""
        return None if self.size is None else self.size.log()

    def shrink(self, pixels: Tensor, patch: int) -> tuple[Tensor, bool]:
        """The pictures as they enter the tower, and True if they are smaller than they were."""
        if self.method is None or self.strength is None or not self.method.pixels:
            return pixels, False
        small, self.full = downsample(pixels, patch, self.strength)
        return small, small is not pixels

    def guide(self, x: Ragged, block: int) -> Tensor | None:
        """Affinity `[t, k]` of a block's input tokens to the semantic tokens, gathering F on the way if asked to."""
        method = self.acting(block)
        guided = method is not None and method.guided
        if self.semantic is None or not (guided or self.gather):
            return None
        with exact(x.values.device.type):
            mapped = None if self.query_map is None else self.query_map(block)
            query = x.values if mapped is None else mapped(x.values)
            affinity = linear(query, self.semantic)  # q S^T, as `madtp.prune.affinity`
            if self.gather:
                content = self._evidence(x).content
                wide = Ragged(affinity, x.lengths).padded()[0]
                feature = semantic_feature(wide, Ragged(query, x.lengths).padded()[0], content)
                self.feature = feature if self.feature is None else self.feature + feature
        return affinity if guided else None

    def prune(
        self,
        block: int,
        x: Ragged,
        affinity: Tensor | None,
        statistics: Statistics | None,
        output: Tensor,
        key: Tensor | None,
    ) -> Ragged:
        """The pruning step: `x` after the self-attention residual in, fewer tokens out; identity when dense.

        Args:
            block: index of the block.
            x: tokens after self-attention.
            affinity: from `guide`.
            statistics: of the block's attention probabilities.
            output: `[t, h, d]` attention output per head, before the projection.
            key: `[t, d]` from `mean_key`.
        """
        extra, before = self.rows.head + self.rows.tail, x.lengths
        if self._entered is None:
            self._entered = before - extra
        decision, kept = Decision(Selection(lengths=before)), None
        if (method := self.acting(block)) is not None:
            assert self.strength is not None
            with exact(x.values.device.type):
                evidence = self._evidence(x, block, affinity, statistics, output, key)
                decision = method.decide(evidence, self.strength, self.training)
                selection = decision.selection
                x = Ragged(selection.apply(x.values), selection.lengths)
                if evidence.size is not None:
                    self.size = selection.total(evidence.size)
                kept = record(evidence, decision) if self.record else None
        if self.provenance:
            self._follow(before, decision.selection.follow)
        entry = BlockTrace(
            self.tower,
            block,
            before - extra,
            x.lengths - extra,
            threshold=decision.threshold,
            provenance=self._record(x.lengths) if self.provenance else None,
            record=kept,
            merged=decision.merged,
            work=decision.work,
            full=None if self.full is None else torch.full_like(before, self.full),
            guided=method is not None,
        )
        self.trace.blocks.append(entry)
        return x

    def _evidence(
        self,
        x: Ragged,
        block: int = 0,
        affinity: Tensor | None = None,
        statistics: Statistics | None = None,
        output: Tensor | None = None,
        key: Tensor | None = None,
    ) -> Evidence:
        needs = frozenset() if self.method is None else self.method.needs
        none = x.values.new_empty(len(x.values), 0)
        size = self.size
        if size is None and "size" in needs:
            wide = torch.promote_types(x.values.dtype, torch.float32)
            size = torch.ones(len(x.values), dtype=wide, device=x.values.device)
        return Evidence(
            lengths=x.lengths,
            class_row=none if statistics is None else statistics.class_row,
            output_norm=none if output is None or statistics is None else torch.linalg.vector_norm(output, dim=-1),
            column=x.values.new_zeros(len(x.values)) if statistics is None else statistics.column,
            affinity=affinity,
            key=key,
            size=size,
            entered=self._entered,
            head=self.rows.head,
            tail=self.rows.tail,
            fewest=self.fewest,
            block=block,
            straight_through=self.straight_through,
        )

    def _follow(self, lengths: Tensor, follow: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        if self._where is None:  # before the first block every content token is itself
            content = [torch.arange(self.rows.head, int(n) - self.rows.tail) for n in lengths]
            starts = (lengths.cumsum(0) - lengths).tolist()
            owner = torch.cat([c + s for c, s in zip(content, starts, strict=True)]).to(self.semantic_device)
            original = torch.tensor([len(c) for c in content])
            self._where = (original, owner, torch.ones(len(owner), device=owner.device))
        original, owner, share = self._where
        self._where = (original, *follow(owner, share))

    @property
    def semantic_device(self) -> torch.device:
        return torch.device("cpu") if self.semantic is None else self.semantic.device

    def _record(self, lengths: Tensor) -> Provenance:
        assert self._where is not None
        original, owner, share = self._where
        start = (lengths.cumsum(0) - lengths).repeat_interleave(original).to(owner.device)
        return Provenance(original, owner - start, share)


# Blocks write into it. What looks through a module's arguments for tensors (FSDP does) would hand them a copy of a
# dataclass, so it shall not know this for one.
del Pruner.__dataclass_fields__
