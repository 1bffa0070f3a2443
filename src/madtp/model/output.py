"""What our models return."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from madtp.model.ragged import Ragged
from madtp.prune import Trace


@dataclass
class Encoded:
    """Images and questions after both pruned towers.

    Attributes:
        image: ragged image tokens, one instance an image.
        question: ragged question states, one instance a question.
        trace: what the towers did.
        alignment: `[q]` alignment loss of each question and its image; None if it was not asked for.
    """

    image: Ragged
    question: Ragged
    trace: Trace
    alignment: Tensor | None = None


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
