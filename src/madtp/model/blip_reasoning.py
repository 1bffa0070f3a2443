"""BLIP for visual reasoning: is a statement true of two images? (NLVR2.)"""

import re
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip import BlipPreTrainedModel

from madtp.model.base import Pruned, blip_guidance
from madtp.model.config import MadtpBlipConfig
from madtp.model.gaze import two_images
from madtp.model.output import Encoded, MadtpBlipReasoningOutput
from madtp.model.text_pair import MadtpBlipPairTextModel, both_sides
from madtp.model.vision import MadtpBlipVisionModel
from madtp.prune import Trace

_FRESH = re.compile(r"madtp_guidance\..+|cls_head\..+|.+\.merge_layer\..+")


class MadtpBlipForVisualReasoning(Pruned, BlipPreTrainedModel):
    """Image tower and two-image text encoder, both pruned, and a classifier on the pooled token.

    Transformers has no such model; parameter names are those of the original BLIP. The two images of a statement are
    two instances, each pruned by its own scores. An image that several statements look at runs through the image tower
    once (`image_index`).
    """

    config_class = MadtpBlipConfig

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_model = MadtpBlipVisionModel(config.vision_config)
        self.text_encoder = MadtpBlipPairTextModel(config.text_config, add_pooling_layer=False)
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.madtp_guidance = blip_guidance(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings of the text encoder."""
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings of the text encoder."""
        self.text_encoder.set_input_embeddings(value)

    @classmethod
    def from_dense(cls, model: PreTrainedModel, **madtp: Any) -> Self:
        """Not to be had: transformers has no two-image BLIP that could share its weights; see `from_blip`."""
        raise TypeError(f"transformers has no two-image BLIP; start one with {cls.__name__}.from_blip")

    @classmethod
    def from_blip(cls, model: PreTrainedModel, **madtp: Any) -> Self:
        """Start one from a BLIP of one image, as the original does from its pre-trained checkpoint.

        Towers are copied, the cross-attention to both sides; merge layers, classifier and guidance are fresh, from
        torch's random state. The model itself is left as it is.

        Args:
            model: a BLIP whose text encoder has cross-attention: for image-text retrieval or question answering.
            **madtp: fields of `PruneConfig`.

        Raises:
            TypeError: `model` is none.
        """
        source = model.state_dict()
        if not any(len(both_sides(name)) > 1 for name in source if name.startswith("text_encoder.")):
            raise TypeError(f"from_blip takes a BLIP for retrieval or question answering, got {type(model).__name__}")
        ours = cls(cls._config_of(model, **madtp))
        reference = next(model.parameters())
        ours.to(device=reference.device, dtype=reference.dtype)
        towers = {name: t for name, t in source.items() if name.startswith(("vision_model.", "text_encoder."))}
        state = {copy: tensor for name, tensor in towers.items() for copy in both_sides(name)}
        missing, unexpected = ours.load_state_dict(state, strict=False)
        left = [name for name in missing if not _FRESH.fullmatch(name)]
        assert not left and not unexpected, f"no counterpart: {left}, {unexpected}"
        ours.train(model.training)
        return ours

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
    ) -> Encoded:
        """Run both towers.

        Args:
            input_ids: `[q, l]` statements.
            pixel_values: `[b, 3, height, width]` images.
            attention_mask: `[q, l]`, nonzero = token, padding anywhere; None = no padding.
            image_index: `[q, 2]` the two images of each statement, left and right, in any order and as often as you
                like; None = images 2i and 2i + 1 for statement i.
            align: also compute the alignment loss, of a statement's states and the mean of its two images' features.
            provenance: record in the trace where every patch and word is after each block.
            interpolate_pos_encoding: for images of another size than trained on.

        Raises:
            ValueError: `image_index` names an image that is not there, or a statement has no token.
        """
        index = two_images(image_index, pixel_values.shape[0], input_ids.shape[0])
        trace = Trace(image_index=index)
        backend = self.pruning.attention
        seer = self._pruner("vision", trace, gather=align, provenance=provenance)
        image = self.vision_model(pixel_values, seer, backend, interpolate_pos_encoding)
        reader = self._pruner("text", trace, gather=align, provenance=provenance)
        statement = self.text_encoder(input_ids, attention_mask, reader, image, index, backend)
        alignment = None
        if align and seer.feature is not None and reader.feature is not None:
            left, right = index.to(seer.feature.device).unbind(1)
            seen = (seer.feature.index_select(0, left) + seer.feature.index_select(0, right)) / 2
            alignment = self._alignment(seen, reader.feature, index[:, 0] * len(pixel_values) + index[:, 1])
        return Encoded(image, statement, trace, alignment)

    def classify(self, encoded: Encoded) -> Tensor:
        """`[q, 2]` logits of false and true of the statements that `encode` has run."""
        assert encoded.question is not None
        logits: Tensor = self.cls_head(encoded.question.first())
        return logits

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        image_index: Tensor | None = None,
        align: bool | None = None,
        provenance: bool = False,
    ) -> MadtpBlipReasoningOutput:
        """Logits of false and true, and the loss where there are labels.

        Args:
            input_ids, pixel_values, attention_mask, image_index, provenance, interpolate_pos_encoding: see `encode`.
            labels: `[q]` 1 = true, 0 = false, -100 = ignored.
            align: compute the alignment loss; None = when there are labels and the model `aligns`.

        Raises:
            ValueError: see `encode`.
        """
        if align is None:
            align = labels is not None and self.aligns
        encoded = self.encode(
            input_ids,
            pixel_values,
            attention_mask,
            image_index,
            align=align,
            provenance=provenance,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        logits = self.classify(encoded)
        loss_task = None
        if labels is not None:
            known = (labels != -100).sum().clamp(min=1)  # a batch without a label has loss 0
            loss_task = F.cross_entropy(logits, labels, reduction="sum") / known
        loss, loss_align = self._losses(loss_task, encoded.alignment)
        return MadtpBlipReasoningOutput(loss, logits, loss_task, loss_align, encoded.trace, encoded)
