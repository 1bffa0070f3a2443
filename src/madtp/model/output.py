"""What our models return."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from madtp.model.ragged import Ragged
from madtp.prune import Trace


@dataclass
class Encoded:
    """Images and texts after the pruned towers.

    Attributes:
        image: ragged image tokens, one instance an image.
        question: ragged states of questions or statements, one instance a text; None in captioning.
        trace: what the towers did.
        alignment: `[q]` alignment loss of each text and its image or images; None if it was not asked for.
    """

    image: Ragged
    question: Ragged | None
    trace: Trace
    alignment: Tensor | None = None

    def states(self) -> tuple[Tensor, Tensor]:
        """What a decoder attends to, question states or else image tokens: `[q, n, c]` and a mask.

        The mask is `[q, n]`, or, where a token may stand for several, what is added to its scores, `[q, 1, 1, n]`.
        """
        seen = self.image if self.question is None else self.question
        states, mask = seen.padded()
        bias = seen.bias()
        if bias is None:
            return states, mask
        more = seen.with_values(bias[:, None]).padded()[0][..., 0].to(states.dtype)
        return states, more.masked_fill(mask == 0, torch.finfo(states.dtype).min)[:, None, None]


@dataclass
class ImageSide:
    """Images after their pruned tower, for retrieval.

    Attributes:
        tokens: ragged image tokens, one instance an image.
        feature: `[b, d]` contrastive features of length 1.
        trace: what the tower did.
        semantic: `[b, k, w]` semantic features, for the alignment loss; None if they were not asked for.
    """

    tokens: Ragged
    feature: Tensor
    trace: Trace
    semantic: Tensor | None = None


@dataclass
class TextSide:
    """Texts after their pruned tower, for retrieval.

    Attributes:
        states: ragged text states, one instance a text.
        feature: `[q, d]` contrastive features of length 1.
        trace: what the tower did.
        semantic: `[q, k, w]` semantic features, for the alignment loss; None if they were not asked for.
    """

    states: Ragged
    feature: Tensor
    trace: Trace
    semantic: Tensor | None = None


@dataclass
class Paired:
    """Images and texts after both pruned towers, for retrieval.

    Attributes:
        image, text: what each tower gave.
        trace: what both did and, if it ran, the text tower's pass with cross-attention.
        logits: `[q, 2]` of the matching head; None if it was not asked for.
        alignment: `[q]` alignment loss of each text and its image; None if it was not asked for.
    """

    image: ImageSide
    text: TextSide
    trace: Trace
    logits: Tensor | None = None
    alignment: Tensor | None = None


@dataclass
class MadtpRetrievalOutput(ModelOutput):
    """Output of `MadtpBlipForImageTextRetrieval.forward`.

    Attributes:
        itm_score: `[q, 2]` logits of the matching head, or `[b, q]` cosines of images and texts (the host's name).
        trace: what the towers did, per instance.
    """

    itm_score: Tensor | None = None
    trace: Any = None


@dataclass
class MadtpBlipVqaOutput(ModelOutput):
    """Output of `MadtpBlipForQuestionAnswering.forward`.

    Attributes:
        loss: `loss_task + alpha * loss_align` (the first alone when dense).
        logits: `[a, l, vocabulary]` next-token logits of the answers.
        loss_task: the decoder's loss.
        loss_align: mean alignment loss of the questions and their images.
        trace: what the towers did, per instance.
        encoded: the towers' ragged outputs.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    loss_task: Tensor | None = None
    loss_align: Tensor | None = None
    trace: Any = None
    encoded: Any = None


@dataclass
class MadtpBlipReasoningOutput(ModelOutput):
    """Output of `MadtpBlipForVisualReasoning.forward`.

    Attributes:
        loss: `loss_task + alpha * loss_align` (the first alone when dense).
        logits: `[q, 2]` of false and true.
        loss_task: mean cross-entropy of the statements with a label.
        loss_align: mean alignment loss of the statements and their images.
        trace: what the towers did, per instance.
        encoded: the towers' ragged outputs.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    loss_task: Tensor | None = None
    loss_align: Tensor | None = None
    trace: Any = None
    encoded: Any = None


@dataclass
class MadtpBlipCaptionOutput(ModelOutput):
    """Output of `MadtpBlipForConditionalGeneration.forward`.

    Attributes:
        loss: `loss_task`.
        logits: `[c, l, vocabulary]` next-token logits of the captions.
        loss_task: the decoder's loss.
        loss_align: None: there is no text tower to align the image tower with.
        trace: what the image tower did, per image, and the decoder, per caption.
        encoded: the image tower's ragged output.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    loss_task: Tensor | None = None
    loss_align: Tensor | None = None
    trace: Any = None
    encoded: Any = None


@dataclass
class MadtpCLIPOutput(ModelOutput):
    """Output of `MadtpCLIPModel.forward`.

    Attributes:
        loss: `loss_task + alpha * loss_align` (the first alone when dense).
        logits_per_image: `[b, q]` scaled cosines of images and texts.
        logits_per_text: `[q, b]` the same.
        text_embeds: `[q, d]` features of length 1.
        image_embeds: `[b, d]` features of length 1.
        loss_task: contrastive loss.
        loss_align: mean alignment loss of the texts and their images.
        trace: what the towers did, per instance.
        encoded: what each tower gave.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    loss_task: Tensor | None = None
    loss_align: Tensor | None = None
    trace: Any = None
    encoded: Any = None
