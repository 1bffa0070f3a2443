"""BLIP's image tower over ragged tokens.

Differs from the host (transformers' `BlipVisionModel`), parameters unchanged:
    - every block prunes between its attention and its MLP, each image by its own scores;
    - tokens travel packed (`Ragged`), attention goes through `attend`;
    - `forward` returns `Ragged` tokens instead of a padded model output.
"""

from torch import Tensor, nn
from transformers import BlipVisionConfig, BlipVisionModel
from transformers.models.blip.modeling_blip import BlipEncoderLayer

from madtp.model.attention import attend
from madtp.model.block import Pruner
from madtp.model.linear import in_parts
from madtp.model.ragged import Ragged
from madtp.model.recompute import PrunedBlock


class MadtpBlipEncoderLayer(PrunedBlock, BlipEncoderLayer):
    """One pre-norm block: attention, residual, pruning step, MLP, residual."""

    def __init__(self, config: BlipVisionConfig, index: int) -> None:
        super().__init__(config)
        self.index = index
        self.dropout = config.attention_dropout

    def forward(self, x: Ragged, pruner: Pruner, backend: str = "auto") -> Ragged:
        """`x`: tokens of every image, the pooled token first."""
        own = self.self_attn
        qkv = own.qkv(self.layer_norm1(x.values)).view(len(x.values), 3, own.num_heads, own.head_dim)
        query, key, value = qkv.unbind(1)
        output, statistics = attend(
            query,
            key,
            value,
            x.lengths,
            x.lengths,
            rows=pruner.wants(self.index),
            bias=pruner.bias(),
            backend=backend,
            dropout=self.dropout if self.training else 0.0,
        )
        mean_key = pruner.mean_key(self.index, key)
        del qkv, query, key, value  # nothing that is not needed any more lies beside what comes
        affinity = pruner.guide(x, self.index)
        x = x.with_values(x.values + own.projection(output.flatten(1)))
        x = pruner.prune(self.index, x, affinity, statistics, output, mean_key)
        del output, statistics
        return x.with_values(in_parts(self._feed_forward, x.values))

    def _feed_forward(self, values: Tensor) -> Tensor:
        """`[t, c] -> [t, c]`: the MLP and its residual, token by token."""
        return values + self.mlp(self.layer_norm2(values))


class MadtpBlipVisionModel(BlipVisionModel):
    """The image tower: `[b, 3, height, width]` pixels to ragged tokens."""

    def __init__(self, config: BlipVisionConfig) -> None:
        super().__init__(config)
        layers = [MadtpBlipEncoderLayer(config, i) for i in range(config.num_hidden_layers)]
        self.encoder.layers = nn.ModuleList(layers)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        pruner: Pruner,
        backend: str = "auto",
        interpolate_pos_encoding: bool = False,
    ) -> Ragged:
        """Tokens of every image after the last block and the final norm; the pooled token is the first."""
        pixel_values, smaller = pruner.shrink(pixel_values, self.config.patch_size)
        x = Ragged.from_padded(
            self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding or smaller)
        )
        for layer in self.encoder.layers:
            x = layer(x, pruner, backend)
        return Ragged(self.post_layernorm(x.values), x.lengths, pruner.size)
