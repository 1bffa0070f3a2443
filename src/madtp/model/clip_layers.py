"""CLIP's two towers over ragged tokens.

Differs from the host (transformers' `CLIPVisionModel`, `CLIPTextModel`), parameters unchanged:
    - every block prunes between its attention and its MLP, each instance by its own scores;
    - tokens travel packed (`Ragged`), attention goes through `attend`;
    - texts are cut behind their end token, which no later token can reach; padding takes part in nothing;
    - `forward` returns `Ragged` tokens instead of a padded model output.
"""

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from madtp.model.attention import attend
from madtp.model.block import Pruner
from madtp.model.linear import in_parts, together
from madtp.model.ragged import Ragged
from madtp.model.recompute import PrunedBlock

# Configs older than transformers 4.31 say 2 and mean the highest id of a text, which OpenAI's end token is.
LEGACY_END = 2


class MadtpCLIPEncoderLayer(PrunedBlock, CLIPEncoderLayer):
    """One pre-norm block: attention, residual, pruning step, MLP, residual."""

    def __init__(self, config: CLIPVisionConfig | CLIPTextConfig, index: int, causal: bool) -> None:
        super().__init__(config)
        self.index = index
        self.causal = causal

    def forward(self, x: Ragged, pruner: Pruner, backend: str = "auto") -> Ragged:
        """`x`: tokens of every instance, the pooled token first (images) or last (texts)."""
        own, normed = self.self_attn, self.layer_norm1(x.values)
        query, key, value = (
            part.view(len(normed), own.num_heads, own.head_dim)
            for part in together((own.q_proj, own.k_proj, own.v_proj), normed)
        )
        output, statistics = attend(
            query,
            key,
            value,
            x.lengths,
            x.lengths,
            rows=pruner.wants(self.index),
            bias=pruner.bias(),
            causal=self.causal,
            backend=backend,
            dropout=own.dropout if self.training else 0.0,
        )
        mean_key = pruner.mean_key(self.index, key)
        del normed, query, key, value  # nothing that is not needed any more lies beside what comes
        affinity = pruner.guide(x, self.index)
        x = x.with_values(x.values + own.out_proj(output.flatten(1)))
        x = pruner.prune(self.index, x, affinity, statistics, output, mean_key)
        del output, statistics
        return x.with_values(in_parts(self._feed_forward, x.values))

    def _feed_forward(self, values: Tensor) -> Tensor:
        """`[t, c] -> [t, c]`: the MLP and its residual, token by token."""
        return values + self.mlp(self.layer_norm2(values))


def _layers(config: CLIPVisionConfig | CLIPTextConfig, causal: bool) -> nn.ModuleList:
    return nn.ModuleList(MadtpCLIPEncoderLayer(config, i, causal) for i in range(config.num_hidden_layers))


class MadtpCLIPVisionModel(CLIPVisionModel):
    """The image tower: `[b, 3, height, width]` pixels to ragged tokens."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__(config)
        self.encoder.layers = _layers(config, causal=False)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        pruner: Pruner,
        backend: str = "auto",
        interpolate_pos_encoding: bool = False,
    ) -> Ragged:
        """Tokens of every image after the last block, not normed; the pooled token is the first."""
        pixel_values, smaller = pruner.shrink(pixel_values, self.config.patch_size)
        embedded = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding or smaller)
        x = Ragged.from_padded(self.pre_layrnorm(embedded))
        for layer in self.encoder.layers:
            x = layer(x, pruner, backend)
        return x


class MadtpCLIPTextModel(CLIPTextModel):
    """The text tower, causal: padded ids and their mask to ragged tokens."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__(config)
        self.encoder.layers = _layers(config, causal=True)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, pruner: Pruner, backend: str = "auto"
    ) -> Ragged:
        """Tokens of every text after the last block and the final norm; the pooled token, its end token, is the last.

        Args:
            input_ids: `[q, l]`, padding anywhere.
            attention_mask: `[q, l]`, nonzero = token; None = all. What stands behind the end token is left out anyhow.
            pruner: the tower's pruning.
            backend: of attention.

        Raises:
            ValueError: a text has no end token behind its first, or more tokens than there are positions.
        """
        ids = Ragged.from_padded(input_ids[..., None], until_end(input_ids, attention_mask, self.eos_token_id))
        most = self.config.max_position_embeddings
        if ids.longest > most:
            raise ValueError(f"a text has {ids.longest} tokens, the model reads {most} at most")
        start = (ids.lengths.cumsum(0) - ids.lengths).repeat_interleave(ids.lengths)
        position = (torch.arange(len(start)) - start).to(input_ids.device)
        # one token a row: the host takes the length of a row for that of a text
        x = ids.with_values(self.embeddings(input_ids=ids.values, position_ids=position[:, None])[:, 0])
        for layer in self.encoder.layers:
            x = layer(x, pruner, backend)
        return x.with_values(self.final_layer_norm(x.values))


def until_end(input_ids: Tensor, attention_mask: Tensor | None, end_id: int) -> Tensor:
    """`[q, l]` True at the tokens of each text up to its end token, the first `end_id` (the highest id if that is 2).

    Args:
        input_ids: `[q, l]`.
        attention_mask: `[q, l]`, nonzero = token; None = all. What is masked is no end token.
        end_id: the config's `eos_token_id`.

    Raises:
        ValueError: a text has no end token behind its first.
    """
    seen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    if end_id == LEGACY_END:
        end = input_ids.masked_fill(~seen, -1).argmax(-1, keepdim=True)
    else:
        end = ((input_ids == end_id) & seen).int().argmax(-1, keepdim=True)
    seen = seen & (torch.arange(input_ids.shape[1], device=input_ids.device) <= end)
    short = (seen.sum(-1) < 2).nonzero().view(-1).tolist()
    if short:
        raise ValueError(
            f"{len(short)} of {len(input_ids)} texts have no end token (id {end_id}) behind their first, "
            f"the first of them is number {short[0]}: end every text as CLIP's tokenizer does"
        )
    return seen
