"""The sizes that a model's cost depends on. They are all that the account of GFLOPs knows of a model."""

from dataclasses import dataclass, replace

import torch

from madtp.prune import BlockTrace, Trace


@dataclass(frozen=True)
class Narrow:
    """Inner widths of a tower out of which weights have been taken, block by block.

    Attributes:
        attention: all heads of the self-attention.
        mlp: of the MLP.
        cross: all heads of the cross-attention to each image; empty = there is none.
    """

    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    cross: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Tower:
    """A pruned tower: image tower, text tower, or text tower with cross-attention.

    Attributes:
        width, layers, mlp: of its blocks; `mlp` is the inner width.
        protected: tokens of an instance that are never pruned: the pooled one, and CLIP's start of text.
        mapped: its tokens pass a linear map to the semantic tokens' width, in every block.
        stem: multiply-accumulates before the first block: the patch convolution.
        head: after the last, on the pooled token: projection, classifier.
        context: width of the image tokens that its cross-attention looks at; 0 = it has none.
        merged_from: first layer that merges the two cross-attentions of an instance with two images by
            `Linear(2C, C)`; the layers before average them.
        narrow: inner widths, where they are not `width` and `mlp` in every block.
    """

    width: int
    layers: int
    mlp: int
    protected: int = 1
    mapped: bool = False
    stem: int = 0
    head: int = 0
    context: int = 0
    merged_from: int = 0
    narrow: Narrow | None = None


@dataclass(frozen=True)
class Decoder:
    """A text decoder; it is not pruned, it attends to fewer tokens.

    Attributes:
        width, layers, mlp: of its layers.
        vocabulary: of its head.
        context: width of the states that it attends to.
    """

    width: int
    layers: int
    mlp: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class Shape:
    """A model, as far as its cost goes.

    Attributes:
        patches: image tokens without the pooled one.
        vision: image tower.
        text: text tower; None = there is none (captioning).
        match: the text tower's other pass, with cross-attention (retrieval).
        decoder: attends to the text tower's states or, where there is no text tower, to the image tokens.
        images: that a text looks at; 2 for NLVR2.
        semantic: K semantic tokens; 0 = nothing is guided.
        semantic_width: D.
        features: the semantic features F are computed too (training; the public code at inference as well).
        thresholds: the semantic tokens set a threshold.
    """

    patches: int
    vision: Tower
    text: Tower | None = None
    match: Tower | None = None
    decoder: Decoder | None = None
    images: int = 1
    semantic: int = 0
    semantic_width: int = 0
    features: bool = False
    thresholds: bool = True

    @property
    def dense(self) -> "Shape":
        """The same model without guidance, and with all its weights."""
        text, match = (None if tower is None else replace(tower, narrow=None) for tower in (self.text, self.match))
        vision = replace(self.vision, narrow=None)
        return replace(self, semantic=0, thresholds=True, vision=vision, text=text, match=match)

    def tower(self, name: str) -> Tower:
        """The tower that a trace calls `name`.

        Raises:
            KeyError: the model has no such tower.
        """
        found = {"vision": self.vision, "text": self.text, "match": self.match}.get(name)
        if found is None:
            raise KeyError(f"this model has no tower {name!r}")
        return found


def dense_trace(shape: Shape, text_tokens: int, answer_tokens: int = 0) -> Trace:
    """What the dense model records of one text with its image or images.

    Args:
        shape: of the model.
        text_tokens: of the text, protected ones included; where there is no text tower, of the caption that the decoder
            takes in.
        answer_tokens: steps of a decoder that attends to the text.
    """
    blocks = []
    for name in ("vision", "text", "match"):
        if getattr(shape, name) is not None:
            tower = shape.tower(name)
            n = torch.tensor([shape.patches] * shape.images if name == "vision" else [text_tokens - tower.protected])
            blocks += [BlockTrace(name, i, n, n) for i in range(tower.layers)]
    trace = Trace(blocks, torch.arange(shape.images).view(1, -1) if shape.images > 1 else torch.zeros(1).long())
    if shape.decoder is not None:
        steps = torch.tensor([text_tokens if shape.text is None else answer_tokens])
        trace.decoder_tokens, trace.decoder_pairs = steps, steps * (steps + 1) // 2
        trace.decoder_sequences = torch.ones_like(steps)
    return trace
