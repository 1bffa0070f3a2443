"""Visual reasoning: is a statement true of two pictures (NLVR2), or of one (NLVR)?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp.data.images import ImageSource
from madtp.data.sample import Data, PairSample, Statement
from madtp.metric.reasoning import reasoning_scores
from madtp.metric.submission import write_nlvr2
from madtp.model.output import Encoded
from madtp.prune import Trace
from madtp.task.base import Batch, Item, Prediction, Scored, Task, owners, picture_index
from madtp.task.distill import Teacher, joined_loss
from madtp.task.words import Words

WORDS = ("false", "true")  # in the order of the head's two logits
LONGEST_STATEMENT = 64
"""Most tokens of a statement: one in twenty of NLVR2's has more than the 35 that BLIP reads of a question."""


class ReasoningTask(Task):
    """Everything the loops need to know about visual reasoning.

    Args:
        processor: image processor and tokenizer of the model.
    """

    name = "reasoning"
    higher_is_better = "accuracy"
    text_name = "statements"

    def __init__(self, processor: Any) -> None:
        super().__init__(processor)
        self.texts = Words(self.tokenizer, LONGEST_STATEMENT)

    @staticmethod
    def words_of(data: Data[PairSample]) -> Iterator[str]:
        """The statements."""
        yield from (statement.text for sample in data.samples for statement in sample.statements)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Pictures once each, the statements in order, each with the numbers of its two pictures."""
        statements: list[Statement] = [statement for _, _, some in items for statement in some]
        input_ids, attention_mask = self.texts.looking(statement.text for statement in statements)
        return {
            "pixel_values": torch.cat([pixels for pixels, _, _ in items]),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "image_index": torch.stack(picture_index(items), 1),
            "labels": torch.tensor([-100 if s.label is None else int(s.label) for s in statements], dtype=torch.long),
            "samples": [sample for _, sample, _ in items],
            "owners": owners(items),
            "texts": statements,
        }

    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the towers take."""
        return {key: batch[key] for key in ("pixel_values", "input_ids", "attention_mask", "image_index")}

    def loss(
        self, model: Any, batch: Batch, helper: Any = None, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch, numbers to log, and the trace."""
        known = (batch["labels"] != -100).sum()
        return joined_loss(model, self.inputs(batch) | {"labels": batch["labels"]}, teacher, known)

    @torch.no_grad()
    def predict(
        self, model: Any, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
    ) -> tuple[list[Prediction], Encoded]:
        """Judge a batch's statements: "true" or "false"."""
        encoded = model.encode(**self.inputs(batch), provenance=provenance)
        judged = model.classify(encoded).argmax(-1).tolist()
        predictions = [
            Prediction(s.statement_id, s.text, WORDS[i], s, sample.image_id, sample.objects, s.kind)
            for s, i, sample in zip(batch["texts"], judged, batch["owners"], strict=True)
        ]
        return predictions, encoded

    def finish(self, model: Any, predictions: list[Prediction]) -> Scored:
        """Accuracy and consistency in [0, 1] over the statements whose label is known; none where none is."""
        known = [p for p in predictions if p.truth.label is not None]
        if not known:
            return Scored(predictions)
        scores = reasoning_scores(
            [p.answer == WORDS[1] for p in known], [p.truth.label for p in known], [p.truth.group for p in known]
        )
        return Scored(predictions, {"accuracy": scores.accuracy, "consistency": scores.consistency})

    def words_for(self, prediction: Prediction) -> tuple[str, str]:
        """ "true" or "false", twice; no second where the label is not known."""
        label = prediction.truth.label
        return prediction.answer, "" if label is None else WORDS[label]

    def write(self, path: Path, scored: Scored) -> None:
        """NLVR2's CSV; see `write_nlvr2`."""
        write_nlvr2(path, [(p.id, p.answer == WORDS[1]) for p in scored.predictions])

    def example(self, images: Sequence[str | ImageSource], *texts: str) -> Item:
        """Two pictures of the user's (or one for both sides) and statements about them."""
        pixels, files = self._read_pictures(images, 2)
        statements = tuple(Statement(text, None, str(i)) for i, text in enumerate(texts))
        sample = PairSample(" ".join(map(str, images)), (files[0], files[-1]), statements)
        return pixels, sample, list(statements)
