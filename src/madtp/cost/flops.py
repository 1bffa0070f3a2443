"""GFLOPs of a run from its trace, exact per instance.

One multiply-accumulate is one FLOP, as fvcore and the paper count.

Counted: patch convolution, linears, attention matmuls, guidance (affinity, threshold, merge), decoder and its head.
Not counted: norms, activations, softmax, embeddings' look-ups. Everything is arithmetic over token counts.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from madtp.prune import BlockTrace, Trace


@dataclass(frozen=True)
class BlipShape:
    """The sizes that a BLIP model's cost depends on.

    Attributes:
        patches: image tokens without the pooled one; `patch_inputs` numbers in each.
        vision_width, vision_layers, vision_mlp: of the image tower.
        text_width, text_layers, text_mlp: of the text encoder, and of the decoder if there is one.
        vocabulary: of the decoder's head; 0 = no decoder.
        semantic: K semantic tokens; 0 = the method is not guided.
        vision_map: image tokens pass a linear map to the semantic tokens' width.
        features: the semantic features F are computed too (training; the public code at inference as well).
        images_per_text: 2 for NLVR2, whose upper half of layers merges two cross-attentions by `Linear(2C, C)`.
        head: multiply-accumulates of a head on the pooled token.
    """

    patches: int
    patch_inputs: int
    vision_width: int
    vision_layers: int
    vision_mlp: int
    text_width: int
    text_layers: int
    text_mlp: int
    vocabulary: int = 0
    semantic: int = 0
    vision_map: bool = False
    features: bool = False
    images_per_text: int = 1
    head: int = 0

    @property
    def dense(self) -> "BlipShape":
        """The same model without guidance."""
        return replace(self, semantic=0)


@dataclass(frozen=True)
class Flops:
    """GFLOPs of each text instance, with its image (or images) counted in full.

    Attributes:
        vision, text, decoder: `[q]` float64.
    """

    vision: Tensor
    text: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """`[q]` GFLOPs."""
        return self.vision + self.text + self.decoder


def _guidance(shape: BlipShape, tokens_in: Tensor, tokens_out: Tensor, width: int, mapped: bool) -> Tensor:
    """Affinity of every input token, threshold over K, merge of what is pruned: `[b, layers]` -> `[b]`."""
    k, d = shape.semantic, shape.text_width
    affinity = (tokens_in + 1) * d * (k + (width if mapped else 0)) if k else torch.zeros_like(tokens_in)
    feature = tokens_in * d * k if shape.features and k else torch.zeros_like(tokens_in)
    merged = (tokens_in - tokens_out + 1) * width * (tokens_out < tokens_in)
    return (affinity + feature + tokens_in * k + merged).sum(-1)


def _layers(blocks: list[BlockTrace]) -> tuple[Tensor, Tensor]:
    tokens_in = torch.stack([block.tokens_in for block in blocks], -1).double()
    return tokens_in, torch.stack([block.tokens_out for block in blocks], -1).double()


def vision_macs(shape: BlipShape, tokens_in: Tensor, tokens_out: Tensor) -> Tensor:
    """Multiply-accumulates `[b]` of the image tower, content tokens `[b, layers]` before and after each step."""
    c = shape.vision_width
    before, after = tokens_in + 1, tokens_out + 1
    attention = 4 * c * c * before + 2 * c * before**2
    block = (attention + 2 * c * shape.vision_mlp * after).sum(-1)
    convolution = shape.patches * shape.patch_inputs * c
    return block + convolution + _guidance(shape, tokens_in, tokens_out, c, shape.vision_map)


def text_macs(shape: BlipShape, tokens_in: Tensor, tokens_out: Tensor, image_tokens: Tensor) -> Tensor:
    """Multiply-accumulates `[q]` of the text encoder.

    Args:
        shape: the model.
        tokens_in, tokens_out: `[q, layers]` content tokens before and after each pruning step.
        image_tokens: `[q, images]` tokens, pooled one included, of each image that the text looks at.
    """
    c = shape.text_width
    before, after = tokens_in + 1, tokens_out + 1
    total = 4 * c * c * before + 2 * c * before**2 + 2 * c * shape.text_mlp * after
    for i in range(image_tokens.shape[1]):
        seen = image_tokens[:, i : i + 1].double()
        total = total + 2 * c * c * after + 2 * shape.vision_width * c * seen + 2 * c * after * seen
    if image_tokens.shape[1] == 2:
        total[:, shape.text_layers // 2 :] += 2 * c * c * after[:, shape.text_layers // 2 :]
    return total.sum(-1) + shape.head + _guidance(shape, tokens_in, tokens_out, c, False)


def decoder_macs(shape: BlipShape, trace: Trace, states: Tensor) -> Tensor:
    """Multiply-accumulates `[q]` of the answer decoder over `states [q]` question tokens; 0 if it has not run."""
    if trace.decoder_tokens is None or trace.decoder_pairs is None or trace.decoder_sequences is None:
        return torch.zeros_like(states)
    c, layers = shape.text_width, shape.text_layers
    tokens, pairs, sequences = (
        x.double() for x in (trace.decoder_tokens, trace.decoder_pairs, trace.decoder_sequences)
    )
    per_token = layers * (6 * c * c + 2 * c * shape.text_mlp) + c * c + c * shape.vocabulary
    attention = layers * 2 * c * (pairs + tokens * states)
    return tokens * per_token + attention + sequences * layers * 2 * c * c * states


def count(shape: BlipShape, trace: Trace) -> Flops:
    """GFLOPs of what a trace records, per text instance."""
    vision_in, vision_out = _layers(trace.tower("vision"))
    text_in, text_out = _layers(trace.tower("text"))
    assert trace.image_index is not None
    index = trace.image_index.view(len(text_in), -1)
    vision = vision_macs(shape, vision_in, vision_out)[index].sum(-1)
    text = text_macs(shape, text_in, text_out, vision_out[:, -1][index] + 1)
    decoder = decoder_macs(shape, trace, text_out[:, -1] + 1)
    return Flops(vision / 1e9, text / 1e9, decoder / 1e9)


def count_dense(shape: BlipShape, trace: Trace) -> Flops:
    """GFLOPs of the same inputs and the same decoding through the dense model."""
    blocks = []
    for tower in ("vision", "text"):
        steps = trace.tower(tower)
        first = steps[0].tokens_in
        blocks += [BlockTrace(tower, step.block, first, first) for step in steps]
    return count(shape.dense, replace(trace, blocks=blocks))


def count_least(shape: BlipShape, trace: Trace) -> Flops:
    """GFLOPs of the same inputs at the utmost pruning: each tower's first block leaves two content tokens."""
    blocks = []
    for tower in ("vision", "text"):
        steps = trace.tower(tower)
        few = steps[0].tokens_in.clamp(max=2)
        blocks += [BlockTrace(tower, i, few if i else step.tokens_in, few) for i, step in enumerate(steps)]
    return count(shape.dense, replace(trace, blocks=blocks))


def reduction(pruned: Tensor, dense: Tensor) -> float:
    """`1 - mean(pruned) / mean(dense)`; both in GFLOPs per instance."""
    return 1.0 - float(pruned.mean() / dense.mean())
