"""BLIP for image-text retrieval with pruned towers, which can run apart: an index sees its images and texts once."""

from typing import Any

import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from madtp.model.base import blip_guidance
from madtp.model.block import Pruner
from madtp.model.config import MadtpBlipConfig
from madtp.model.dual import DualEncoder
from madtp.model.gaze import paired
from madtp.model.output import MadtpRetrievalOutput, Paired
from madtp.model.ragged import Ragged
from madtp.model.text import MadtpBlipTextModel
from madtp.model.vision import MadtpBlipVisionModel
from madtp.prune import Trace


class MadtpBlipForImageTextRetrieval(DualEncoder, BlipForImageTextRetrieval):
    """BLIP for retrieval: contrastive features of both pruned towers, and a head that judges whether a pair matches.

    Differs from the host:
        - the towers run alone (`see`, `read`) and together (`match`), so that ranking and re-ranking share their work;
        - several texts may be matched with one image, its keys and values computed once (`image_index`);
        - padding of texts and pruned tokens is masked everywhere;
        - with `temperature=None` the outputs equal the host's but for that padding.
    """

    config_class = MadtpBlipConfig
    stock_class = BlipForImageTextRetrieval

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = MadtpBlipVisionModel(config.vision_config)
        self.text_encoder = MadtpBlipTextModel(config.text_config, add_pooling_layer=False)
        self.madtp_guidance = blip_guidance(config)
        self.post_init()

    @property
    def feature_width(self) -> int:
        """Numbers in an image's or a text's contrastive feature."""
        return int(self.config.image_text_hidden_size)

    def _text_tower(self, input_ids: Tensor, attention_mask: Tensor | None, pruner: Pruner) -> Ragged:
        return self.text_encoder(input_ids, attention_mask, pruner, backend=self.pruning.attention)

    def _project_image(self, tokens: Ragged) -> Tensor:
        return self.vision_proj(tokens.first())

    def _project_text(self, states: Ragged) -> Tensor:
        return self.text_proj(states.first())

    def match(
        self,
        image: Ragged,
        image_index: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        provenance: bool = False,
    ) -> tuple[Tensor, Trace]:
        """Logits `[q, 2]` that a text does not (0) or does (1) describe its image, and the trace of this pass.

        The text tower with cross-attention to the image. BLIP has it begin with [ENC]: see `begin_with`.

        Args:
            image: tokens from `see`.
            image_index: `[q]` the image of each text, in any order.
            input_ids, attention_mask, provenance: see `read`.

        Raises:
            ValueError: `image_index` is of another length, or names an image that is not there.
        """
        index = paired(image_index, len(image.lengths), len(input_ids), needed=True)
        assert index is not None
        trace = Trace(image_index=index)
        pruner = self._pruner("match", trace, gather=False, provenance=provenance)
        states = self.text_encoder(input_ids, attention_mask, pruner, image, index, backend=self.pruning.attention)
        logits: Tensor = self.itm_head(states.first())
        return logits, trace

    def encode(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        *,
        match: bool = False,
        match_token_id: int | None = None,
        align: bool = False,
        provenance: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Paired:
        """Both towers on pairs of an image and a text, and one trace of all.

        Args:
            input_ids, pixel_values, attention_mask, provenance, interpolate_pos_encoding: see `see` and `read`.
            image_index: `[q]` the image of each text; None = one text an image, in order, or all of a single image.
            match: also judge the pairs by the matching head.
            match_token_id: first token of a text in that pass, BLIP's [ENC]; None = as in `input_ids`.
            align: also compute the alignment loss, of the image tower and the text tower without images.

        Raises:
            ValueError: see `match`.
        """
        index = paired(image_index, len(pixel_values), len(input_ids), needed=match or align)
        both = self._pair(input_ids, pixel_values, attention_mask, index, align, provenance, interpolate_pos_encoding)
        if match:
            ids = input_ids if match_token_id is None else begin_with(input_ids, attention_mask, match_token_id)
            assert index is not None
            both.logits, matched = self.match(both.image.tokens, index, ids, attention_mask, provenance=provenance)
            both.trace.blocks += matched.blocks
        return both

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        use_itm_head: bool | None = True,
        attention_mask: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        image_index: Tensor | None = None,
        provenance: bool = False,
        **kwargs: Any,
    ) -> MadtpRetrievalOutput:
        """As the host: logits of the matching head, or the similarity of every image and every text.

        Args:
            input_ids, pixel_values, attention_mask, image_index, provenance, interpolate_pos_encoding: see `encode`.
            use_itm_head: True: `itm_score` is `[q, 2]` from `match`, ids as they are; else `[b, q]` cosines.

        Raises:
            ValueError: see `match`.
        """
        image = self.see(pixel_values, provenance=provenance, interpolate_pos_encoding=interpolate_pos_encoding)
        if use_itm_head:
            index = paired(image_index, len(pixel_values), len(input_ids), needed=True)
            assert index is not None
            score, last = self.match(image.tokens, index, input_ids, attention_mask, provenance=provenance)
        else:
            index = paired(image_index, len(pixel_values), len(input_ids), needed=False)
            text = self.read(input_ids, attention_mask, provenance=provenance)
            score, last = image.feature @ text.feature.T, text.trace
        return MadtpRetrievalOutput(score, Trace([*image.trace.blocks, *last.blocks], index))


def begin_with(input_ids: Tensor, attention_mask: Tensor | None, token_id: int) -> Tensor:
    """`[q, l]` ids with another first token: that of the text, wherever its padding stands."""
    if attention_mask is None:
        first = torch.zeros(len(input_ids), 1, dtype=torch.long, device=input_ids.device)
    else:
        first = attention_mask.bool().int().argmax(1, keepdim=True)
    return input_ids.scatter(1, first, token_id)
