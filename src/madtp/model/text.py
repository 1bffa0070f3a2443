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
from madtp.model.ragged import Ragged


class MadtpBlipTextLayer(BlipTextLayer):
    """One post-norm layer: self-attention, pruning step, cross-attention (where there are images), MLP."""

    def forward(
        self,
        x: Ragged,
        image: Ragged | None,
        image_index: Tensor | None,
        pruner: Pruner,
        backend: str = "auto",
    ) -> Ragged:
        """`x`: texts, pooled token first; `image`: the images they see; `image_index`: which one each text sees."""
        affinity = pruner.guide(x)
        own = self.attention.self
        q, k, v = (_heads(part(x.values), own) for part in (own.query, own.key, own.value))
        dropout = own.dropout.p if self.training else 0.0
        output, statistics = attend(
            q, k, v, x.lengths, x.lengths, rows=pruner.wants(), backend=backend, dropout=dropout
        )
        x = x.with_values(self.attention.output(output.flatten(1), x.values))
        x = pruner.prune(self.layer_num, x, affinity, statistics, output)
        if image is not None and image_index is not None:
            cross = self.crossattention.self
            # the texts of one image are one run of queries over its keys
            queries = torch.zeros_like(image.lengths).index_add_(0, image_index, x.lengths)
            seen, _ = attend(
                _heads(cross.query(x.values), cross),
                _heads(cross.key(image.values), cross),
                _heads(cross.value(image.values), cross),
                queries,
                image.lengths,
                backend="auto" if backend == "blocked" else backend,
                dropout=cross.dropout.p if self.training else 0.0,
            )
            x = x.with_values(self.crossattention.output(seen.flatten(1), x.values))
        return x.with_values(self.feed_forward_chunk(x.values))


def _heads(values: Tensor, attention: BlipTextSelfAttention) -> Tensor:
    return values.view(len(values), attention.num_attention_heads, attention.attention_head_size)


class MadtpBlipTextModel(BlipTextModel):
    """The text encoder: padded ids and their mask to ragged tokens."""

    def __init__(self, config: BlipTextConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        layers = [MadtpBlipTextLayer(config, i) for i in range(config.num_hidden_layers)]
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
            image_index: `[q]` the image that each text looks at, not descending, CPU.
            backend: of self-attention.
        """
        ids = Ragged.from_padded(input_ids[..., None], attention_mask)
        start = (ids.lengths.cumsum(0) - ids.lengths).repeat_interleave(ids.lengths)
        position = (torch.arange(len(start)) - start).to(input_ids.device)
        x = ids.with_values(self.embeddings(input_ids=ids.values.T, position_ids=position[None])[0])
        for layer in self.encoder.layer:
            x = layer(x, image, image_index, pruner, backend)
        return x


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
