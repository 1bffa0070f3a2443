"""BLIP's text encoder with two images a text: the encoder of NLVR2 statements (BLIP, Li et al. 2022, figure 5).

Differs from `MadtpBlipTextModel`:
    - every layer has two cross-attentions, one an image, with weights of their own;
    - their projected outputs are averaged; from layer `MERGE_FROM` on a linear merges them.
"""

import re

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from madtp.model.gaze import Gaze
from madtp.model.linear import together
from madtp.model.ragged import Ragged
from madtp.model.text import MadtpBlipTextLayer, MadtpBlipTextModel, cross_attend

MERGE_FROM = 6  # the upper half of BLIP's twelve layers
_ONCE = re.compile(r"(.+\.crossattention\.)(self|output\.dense)(\..+)")


def both_sides(name: str) -> list[str]:
    """The names here of a one-image model's parameter: two for its cross-attention, which starts both sides."""
    once = _ONCE.fullmatch(name)
    return [name] if once is None else [once.expand(rf"\g<1>\g<2>{side}\g<3>") for side in (0, 1)]


class PairOutput(nn.Module):
    """Projections of both cross-attentions, made one, then the residual and its LayerNorm."""

    def __init__(self, config: BlipTextConfig, merge: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.merge_layer = nn.Linear(2 * width, width) if merge else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, seen0: Tensor, seen1: Tensor, x: Tensor) -> Tensor:
        """`[t, c]` each: what the tokens gathered from the first image and from the second, and the tokens."""
        first, second = self.dense0(seen0), self.dense1(seen1)
        merge = self.merge_layer
        both = (first + second) / 2 if merge is None else merge(torch.cat([first, second], -1))
        return self.LayerNorm(self.dropout(both) + x)


class PairAttention(nn.Module):
    """Two cross-attentions and what makes their outputs one."""

    def __init__(self, config: BlipTextConfig, layer: int) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.output = PairOutput(config, merge=layer >= MERGE_FROM)


class MadtpBlipPairTextLayer(MadtpBlipTextLayer):
    """A `MadtpBlipTextLayer` whose texts look at two images each."""

    def __init__(self, config: BlipTextConfig, layer_num: int) -> None:
        super().__init__(config, layer_num)
        self.crossattention = PairAttention(config, layer_num)

    def look(self, x: Ragged, gazes: tuple[Gaze, ...], backend: str) -> Ragged:
        """Both cross-attentions, their residual and LayerNorm."""
        cross = self.crossattention
        sides = (cross.self0, cross.self1)
        queries = together([side.query for side in sides], x.values)
        seen = [
            cross_attend(side, query, x, gaze, backend) for side, query, gaze in zip(sides, queries, gazes, strict=True)
        ]
        return x.with_values(cross.output(*seen, x.values))


class MadtpBlipPairTextModel(MadtpBlipTextModel):
    """A `MadtpBlipTextModel` whose `image_index` is `[q, 2]`, in any order."""

    layer_class = MadtpBlipPairTextLayer
