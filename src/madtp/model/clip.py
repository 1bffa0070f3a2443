"""CLIP with pruned towers: a subclass of transformers' class, every parameter name kept."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from madtp.model.attention import Rows
from madtp.model.block import BlockGuidance, Pruner
from madtp.model.clip_layers import MadtpCLIPTextModel, MadtpCLIPVisionModel
from madtp.model.config import MadtpCLIPConfig, PruneConfig
from madtp.model.dual import DualEncoder
from madtp.model.gaze import paired
from madtp.model.output import MadtpCLIPOutput, Paired
from madtp.model.ragged import Ragged

__all__ = ["MadtpCLIPConfig", "MadtpCLIPModel", "contrastive_loss"]


class MadtpCLIPModel(DualEncoder, CLIPModel):
    """CLIP with both towers pruned, which run alone (`see`, `read`) or together (`encode`, `forward`).

    Differs from the host:
        - texts are cut behind their end token, and padding takes part in nothing, wherever it stands;
        - several texts may belong to one image, for the losses (`image_index`);
        - token states come ragged, or padded with zeros where the host's classes are returned;
        - with `temperature=None` features and logits equal the host's.
    """

    config_class = MadtpCLIPConfig
    stock_class = CLIPModel
    # The public code leaves an image whole that would keep one patch only.
    image_pruning: ClassVar[dict[str, Any]] = {"fewest": 2}
    # The texts' first and last tokens are never pruned, and the last is the pooled one.
    text_pruning: ClassVar[dict[str, Any]] = {"rows": Rows(head=1, tail=1)}

    def __init__(self, config: MadtpCLIPConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision_model = MadtpCLIPVisionModel(vision)
        self.text_model = MadtpCLIPTextModel(text)
        self.madtp_guidance = BlockGuidance(
            PruneConfig.of(config.madtp).semantic_tokens,
            config.semantic_width or text.hidden_size,
            (vision.hidden_size, vision.num_hidden_layers),
            (text.hidden_size, text.num_hidden_layers),
        )
        self.post_init()

    @property
    def feature_width(self) -> int:
        """Numbers in an image's or a text's contrastive feature."""
        return int(self.config.projection_dim)

    def _text_tower(self, input_ids: Tensor, attention_mask: Tensor | None, pruner: Pruner) -> Ragged:
        return self.text_model(input_ids, attention_mask, pruner, self.pruning.attention)

    def encode(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        *,
        align: bool = False,
        provenance: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Paired:
        """Both towers, and one trace of both.

        Args:
            input_ids, pixel_values, attention_mask, provenance, interpolate_pos_encoding: see `see` and `read`.
            image_index: `[q]` the image of each text; None = one text an image, in order, or all of a single image.
                Where the numbers differ and it is not given, no text belongs to an image.
            align: also compute the alignment loss of every text and its image.

        Raises:
            ValueError: `image_index` is wrong, or needed and not given; or see `read`.
        """
        index = paired(image_index, len(pixel_values), len(input_ids), needed=align)
        return self._pair(input_ids, pixel_values, attention_mask, index, align, provenance, interpolate_pos_encoding)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        image_index: Tensor | None = None,
        align: bool | None = None,
        provenance: bool = False,
    ) -> MadtpCLIPOutput:
        """As the host: the scaled similarity of every image and every text.

        Args:
            input_ids, pixel_values, attention_mask, image_index, provenance, interpolate_pos_encoding: see `encode`.
            return_loss: also compute the losses, for which every text belongs to an image.
            align: compute the alignment loss; None = with the others, if the model `aligns`.

        Raises:
            ValueError: see `encode`.
        """
        if align is None:
            align = bool(return_loss) and self.aligns
        index = paired(image_index, len(pixel_values), len(input_ids), needed=bool(return_loss) or align)
        encoded = self.encode(
            input_ids,
            pixel_values,
            attention_mask,
            index,
            align=align,
            provenance=provenance,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        image, text = encoded.image.feature, encoded.text.feature
        logits = text @ image.T * self.logit_scale.exp()
        loss_task = None
        if return_loss:
            assert index is not None
            loss_task = contrastive_loss(logits, index)
        loss, loss_align = self._losses(loss_task, encoded.alignment)
        return MadtpCLIPOutput(loss, logits.T, logits, text, image, loss_task, loss_align, encoded.trace, encoded)

    def get_image_features(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Any:
        """As the host: `pooler_output [b, d]` holds the features before they are scaled to length 1.

        `last_hidden_state` holds the tokens left by the last block, padded on the right with zeros.
        """
        tokens = self.see(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding).tokens
        return BaseModelOutputWithPooling(tokens.padded()[0], self._project_image(tokens))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """As the host: `pooler_output [q, d]` holds the features before they are scaled to length 1.

        `last_hidden_state` holds the tokens left by the last block, up to the end token, then zeros.

        Raises:
            ValueError: see `read`.
        """
        states = self.read(input_ids, attention_mask).states
        return BaseModelOutputWithPooling(states.padded()[0], self._project_text(states))

    def _project_image(self, tokens: Ragged) -> Tensor:
        return self.visual_projection(self.vision_model.post_layernorm(tokens.first()))

    def _project_text(self, states: Ragged) -> Tensor:
        return self.text_projection(states.last())


def contrastive_loss(logits: Tensor, image_index: Tensor) -> Tensor:
    """CLIP's loss: the mean of picking each text's image, and each image's text, out of the batch.

    Args:
        logits: `[q, b]` scaled similarity of every text and every image.
        image_index: `[q]` the image of each text. The texts of one image share its target; an image without any adds
            nothing to the mean over images.
    """
    index = image_index.to(logits.device)
    belongs = (index[:, None] == torch.arange(logits.shape[1], device=logits.device)).to(logits.dtype)
    count = belongs.sum(0)
    has = count > 0
    of_images = cross_entropy(logits.T[has], (belongs / count.clamp(min=1)).T[has])
    loss: Tensor = (cross_entropy(logits, index) + of_images) / 2
    return loss
