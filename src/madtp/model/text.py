"""BLIP's text encoder over ragged tokens, and a decoder that honours its masks.

Differs from the host (transformers' `BlipTextModel`), parameters unchanged:
    - every layer prunes after self-attention and its LayerNorm, before cross-attention, each text by its own scores;
    - tokens travel packed, padding takes part in nothing, wherever it stands;
    - several texts may look at one image: its keys and values are computed once;
    - the decoder's cross-attention masks padding, which the host's ignores.
"""

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig
from transformers.models.blip.modeling_blip_text import (
    BlipTextLayer,
    BlipTextLMHeadModel,
    BlipTextModel,
    BlipTextSelfAttention,
)

from madtp.model.attention import attend
from madtp.model.block import Pruner
from madtp.model.gaze import Gaze
from madtp.model.linear import together
from madtp.model.ragged import Ragged
from madtp.model.recompute import PrunedBlock


class MadtpBlipTextLayer(PrunedBlock, BlipTextLayer):
    """One post-norm layer: self-attention, pruning step, cross-attention (where there are images), MLP."""

    def forward(
        self,
        x: Ragged,
        gazes: tuple[Gaze, ...],
        pruner: Pruner,
        backend: str = "auto",
    ) -> Ragged:
        """`x`: texts, pooled token first; `gazes`: the images they look at, none without cross-attention."""
        affinity = pruner.guide(x, self.layer_num)
        own = self.attention.self
        q, k, v = (_heads(part, own) for part in together((own.query, own.key, own.value), x.values))
        dropout = own.dropout.p if self.training else 0.0
        output, statistics = attend(
            q,
            k,
            v,
            x.lengths,
            x.lengths,
            rows=pruner.wants(self.layer_num),
            bias=pruner.bias(),
            backend=backend,
            dropout=dropout,
        )
        x = x.with_values(self.attention.output(output.flatten(1), x.values))
        x = pruner.prune(self.layer_num, x, affinity, statistics, output, pruner.mean_key(self.layer_num, k))
        if gazes:
            x = self.look(x, gazes, "auto" if backend == "blocked" else backend)
        return x.with_values(self.feed_forward_chunk(x.values))

    def look(self, x: Ragged, gazes: tuple[Gaze, ...], backend: str) -> Ragged:
        """Cross-attention, its residual and LayerNorm."""
        (gaze,) = gazes
        attention = self.crossattention.self
        seen = cross_attend(attention, attention.query(x.values), x, gaze, backend)
        return x.with_values(self.crossattention.output(seen, x.values))


def cross_attend(attention: BlipTextSelfAttention, query: Tensor, x: Ragged, gaze: Gaze, backend: str) -> Tensor:
    """`[t, c]` what the tokens of the texts `x`, with queries `[t, c]`, gather from their images, before projection.

    An image's keys and values are computed once, however many texts look at it. A token that stands for several is
    attended to as they would be.
    """
    query, image = _heads(query, attention), gaze.image
    # the texts of one image are one run of queries over its keys
    place = None if gaze.order is None else x.positions(gaze.order)
    key, value = (_heads(part, attention) for part in together((attention.key, attention.value), image.values))
    seen, _ = attend(
        query if place is None else query.index_select(0, place),
        key,
        value,
        gaze.queries(x.lengths),
        image.lengths,
        bias=image.bias(),
        backend=backend,
        dropout=attention.dropout.p if attention.training else 0.0,
    )
    return (seen if place is None else seen.index_select(0, place.argsort())).flatten(1)


def _heads(values: Tensor, attention: BlipTextSelfAttention) -> Tensor:
    return values.view(len(values), attention.num_attention_heads, attention.attention_head_size)


class MadtpBlipTextModel(BlipTextModel):
    """The text encoder: padded ids and their mask to ragged tokens."""

    layer_class = MadtpBlipTextLayer

    def __init__(self, config: BlipTextConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        layers = [self.layer_class(config, i) for i in range(config.num_hidden_layers)]
        self.encoder.layer = nn.ModuleList(layers)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pruner: Pruner,
        image: Ragged | None = None,
        image_index: Tensor | None = None,
        backend: str = "auto",
    ) -> Ragged:
        """Tokens of every text after the last layer; the pooled token is the first.

        Args:
            input_ids: `[q, l]`, padding anywhere.
            attention_mask: `[q, l]`, nonzero = token; None = all.
            pruner: the tower's pruning.
            image: tokens of the images looked at; None = no cross-attention.
            image_index: `[q]` the image that each text looks at, CPU; `[q, n]` the n of them.
            backend: of self-attention.

        Raises:
            ValueError: a text has no token.
        """
        ids = Ragged.from_padded(input_ids[..., None], attention_mask)
        if bool((ids.lengths == 0).any()):
            raise ValueError(f"text {int(ids.lengths.argmin())} has no token: its attention_mask is all zeros")
        gazes: tuple[Gaze, ...] = ()
        if image is not None and image_index is not None:
            sides = image_index[:, None] if image_index.ndim == 1 else image_index
            gazes = tuple(Gaze.of(image, index) for index in sides.unbind(1))
        start = (ids.lengths.cumsum(0) - ids.lengths).repeat_interleave(ids.lengths)
        position = (torch.arange(len(start)) - start).to(input_ids.device)
        x = ids.with_values(self.embeddings(input_ids=ids.values.T, position_ids=position[None])[0])
        for layer in self.encoder.layer:
            x = layer(x, gazes, pruner, backend)
        return Ragged(x.values, x.lengths, pruner.size)


class MaskedCrossAttention(BlipTextSelfAttention):
    """The host's cross-attention, with the encoder's mask in force.

    The host's layer hands that mask over as `attention_mask` and its attention then drops it.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        if encoder_hidden_states is not None and encoder_attention_mask is None:
            encoder_attention_mask = attention_mask
        return super().forward(
            hidden_states,
            attention_mask=attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            **kwargs,
        )


class MadtpBlipTextDecoder(BlipTextLMHeadModel):
    """The host's decoder with `MaskedCrossAttention`; it is not pruned, it attends to fewer tokens."""

    def __init__(self, config: BlipTextConfig) -> None:
        super().__init__(config)
        for i, layer in enumerate(self.bert.encoder.layer):
            layer.crossattention.self = MaskedCrossAttention(config, True, layer_idx=i)
        self.post_init()
