"""GFLOPs of a run from its trace, exact per instance.

One multiply-accumulate is one FLOP, as fvcore and the paper count.

Counted: patch convolution, linears, attention matmuls, guidance (affinity, threshold, merge), heads, decoder.
Not counted: norms, activations, softmax, embeddings' look-ups. Everything is arithmetic over token counts. Causal
attention counts as the full square, which is what runs, and what the field reports.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from madtp.cost.shape import Narrow, Shape, Tower
from madtp.prune import BlockTrace, Trace


@dataclass(frozen=True)
class Flops:
    """GFLOPs of each text instance (in captioning: each caption), with its image or images counted in full.

    Attributes:
        vision, text, match, decoder: `[q]` float64.
    """

    vision: Tensor
    text: Tensor
    match: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """`[q]` GFLOPs."""
        return self.features + self.match + self.decoder

    @property
    def features(self) -> Tensor:
        """`[q]` GFLOPs of image tower and text tower alone: retrieval without the matching head."""
        return self.vision + self.text


def _deciding(shape: Shape, tower: Tower, blocks: list[BlockTrace]) -> Tensor:
    """Affinity of every input token, threshold over K, comparing tokens, merging what is pruned: `[b]`."""
    k, d = shape.semantic, shape.semantic_width
    tokens_in, tokens_out = _layers(blocks)
    affinity = (tokens_in + tower.protected) * d * (k + (tower.width if tower.mapped else 0)) * (k > 0)
    feature = tokens_in * d * k * shape.features
    asked = torch.tensor([b.guided for b in blocks])
    guided = (affinity + tokens_in * k * shape.thresholds) * asked + feature
    once = (tokens_out < tokens_in).double()
    merged = torch.stack([one if b.merged is None else b.merged for b, one in zip(blocks, once.T, strict=True)], -1)
    # all that go, and what each merged token itself was, if any of them is merged at all
    merging = (tokens_in - tokens_out + merged) * tower.width * (merged > 0)
    work = sum((b.work.double() for b in blocks if b.work is not None), torch.zeros(len(tokens_in)).double())
    return (guided + merging).sum(-1) + work


def tower_macs(shape: Shape, tower: Tower, blocks: list[BlockTrace], image_tokens: Tensor | None = None) -> Tensor:
    """Multiply-accumulates `[b]` of one tower.

    Args:
        shape: the model.
        tower: the tower of it.
        blocks: what each of its blocks did.
        image_tokens: `[b, images]` tokens, protected ones included, of each image that a text looks at, if it does.
    """
    c = tower.width
    tokens_in, tokens_out = _layers(blocks)
    before, after = tokens_in + tower.protected, tokens_out + tower.protected
    layers, images = len(blocks), 0 if image_tokens is None else image_tokens.shape[1]
    widths = tower.narrow or Narrow((c,) * layers, (tower.mlp,) * layers, ((c,) * layers,) * images)
    inner, mlp = (torch.tensor(some).double() for some in (widths.attention, widths.mlp))
    total = 4 * c * inner * before + 2 * inner * before**2 + 2 * c * mlp * after
    if tower.context and image_tokens is not None:
        for seen, across in zip(image_tokens.double().unbind(-1), widths.cross, strict=True):
            x = torch.tensor(across).double()
            total = total + 2 * c * x * after + (2 * tower.context * x + 2 * x * after) * seen[:, None]
        if image_tokens.shape[1] == 2:
            total[:, tower.merged_from :] += 2 * c * c * after[:, tower.merged_from :]
    # the stem is that of a full-size picture
    stem = tower.stem * tokens_in[:, 0] / shape.patches if tower.stem else 0
    return total.sum(-1) + stem + tower.head + _deciding(shape, tower, blocks)


def decoder_macs(shape: Shape, trace: Trace, states: Tensor) -> Tensor:
    """Multiply-accumulates `[q]` of the decoder, which attends to `states [q]` tokens; 0 if it has not run."""
    if shape.decoder is None or trace.decoder_tokens is None:
        return torch.zeros_like(states)
    assert trace.decoder_pairs is not None and trace.decoder_sequences is not None
    c, layers = shape.decoder.width, shape.decoder.layers
    tokens, pairs, sequences = (
        x.double() for x in (trace.decoder_tokens, trace.decoder_pairs, trace.decoder_sequences)
    )
    logits = tokens if trace.decoder_logits is None else trace.decoder_logits.double()
    linear = tokens * layers * (6 * c * c + 2 * c * shape.decoder.mlp) + logits * (c * c + c * shape.decoder.vocabulary)
    attention = layers * 2 * c * (pairs + tokens * states)
    return linear + attention + sequences * layers * 2 * shape.decoder.context * c * states


def _layers(blocks: list[BlockTrace]) -> tuple[Tensor, Tensor]:
    tokens_in = torch.stack([block.tokens_in for block in blocks], -1).double()
    return tokens_in, torch.stack([block.tokens_out for block in blocks], -1).double()


def count(shape: Shape, trace: Trace) -> Flops:
    """GFLOPs of what a trace records, per text instance; without texts, per image."""
    seeing = trace.tower("vision")
    vision_out = _layers(seeing)[1]
    index = torch.arange(len(vision_out)) if trace.image_index is None else trace.image_index
    index = index[:, None] if index.ndim == 1 else index
    vision = tower_macs(shape, shape.vision, seeing)[index].sum(-1)
    seen = vision_out[:, -1][index] + shape.vision.protected
    macs = {"text": torch.zeros_like(vision), "match": torch.zeros_like(vision)}
    states = seen.sum(-1)
    for name in macs:
        if blocks := trace.tower(name):
            tower = shape.tower(name)
            macs[name] = tower_macs(shape, tower, blocks, seen)
            states = _layers(blocks)[1][:, -1] + tower.protected
    decoder = decoder_macs(shape, trace, states)
    return Flops(vision / 1e9, macs["text"] / 1e9, macs["match"] / 1e9, decoder / 1e9)


def _as_if(trace: Trace, *, few: int | None) -> Trace:
    """The same inputs and decoding, each tower's first block leaving `few` content tokens; None = all, everywhere."""
    blocks: list[BlockTrace] = []
    entered: dict[str, Tensor] = {}
    for step in trace.blocks:
        first = entered.setdefault(step.tower, step.tokens_in if step.full is None else step.full)
        left = first if few is None else first.clamp(max=few)
        blocks.append(BlockTrace(step.tower, step.block, first if step.block == 0 else left, left))
    return replace(trace, blocks=blocks)


def count_dense(shape: Shape, trace: Trace) -> Flops:
    """GFLOPs of the same inputs and the same decoding through the dense model."""
    return count(shape.dense, _as_if(trace, few=None))


def count_least(shape: Shape, trace: Trace) -> Flops:
    """GFLOPs of the same inputs at the utmost pruning: each tower's first block leaves two content tokens."""
    return count(shape.dense, _as_if(trace, few=2))


def reduction(pruned: Tensor, dense: Tensor) -> float:
    """`1 - mean(pruned) / mean(dense)`; both in GFLOPs per instance."""
    return 1.0 - float(pruned.mean() / dense.mean())
