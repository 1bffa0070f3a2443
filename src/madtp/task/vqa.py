"""Visual question answering: how to batch it, its loss, its answers and its metrics."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from madtp.data.images import ImageSource
from madtp.data.sample import Data, Question, VqaSample
from madtp.data.stream import Stream
from madtp.errors import InputError
from madtp.metric.submission import write_vqa
from madtp.metric.vqa import by_group, exact_accuracy, vqa_accuracy, vqa_score
from madtp.model.output import Encoded
from madtp.prune import Trace
from madtp.task.base import Batch, Item, Prediction, Scored, Task, TaskDataset, owners, picture_index
from madtp.task.distill import Teacher, joined_loss
from madtp.task.tags import tagging_loss
from madtp.task.words import Words

Inference = Literal["generate", "rank"]


class VqaTask(Task):
    """Everything the loops need to know about VQA.

    Args:
        processor: image processor and tokenizer of the model.
        inference: "generate" (free text) or "rank" (over the data's closed answer list).
        top_k: answers that `rank` scores whole.
    """

    name = "vqa"
    higher_is_better = "accuracy"
    text_name = "questions"
    options = frozenset({"inference", "top_k"})

    def __init__(self, processor: Any, inference: Inference = "generate", top_k: int = 128) -> None:
        if inference not in ("generate", "rank"):
            raise InputError(f"unknown inference {inference!r}", "--inference", "use generate or rank")
        super().__init__(processor)
        self.inference, self.top_k = inference, top_k
        self.texts = Words(self.tokenizer)
        self.frequency: Counter[str] = Counter()  # of answers, in the data last trained on

    def dataset(self, data: Data[VqaSample] | Stream, *, training: bool = False, **options: Any) -> TaskDataset:
        """The split as a torch data set; training counts its answers."""
        if isinstance(data, Stream):
            self.frequency = data.frequency
        elif training:
            every = (answer for sample in data.samples for question in sample.questions for answer in question.answers)
            self.frequency = Counter(every)
        return super().dataset(data, training=training, **options)

    def weight(self, text: Question) -> float:
        """Questions whose answer is rare are drawn more often, else "yes" and "no" drown the rest."""
        return 1 / self.frequency.get(text.answers[0], 1)

    @staticmethod
    def words_of(data: Data[VqaSample]) -> Iterator[str]:
        """Questions and answers."""
        yield from (question.text for sample in data.samples for question in sample.questions)
        yield from (answer for sample in data.samples for question in sample.questions for answer in question.answers)
        yield from data.answers

    def collate(self, items: Sequence[Item]) -> Batch:
        """Images once each, their questions in order, every reference answer with its weight."""
        questions: list[Question] = [question for _, _, some in items for question in some]
        input_ids, attention_mask = self.texts.looking(question.text for question in questions)
        labels, label_mask = self.texts.said(answer for question in questions for answer in question.answers)
        return {
            "pixel_values": torch.cat([pixels for pixels, _, _ in items]),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "image_index": picture_index(items)[0],
            "labels": labels,
            "decoder_attention_mask": label_mask,
            "answer_index": torch.tensor([i for i, q in enumerate(questions) for _ in q.answers], dtype=torch.long),
            "answer_weights": torch.tensor([w for question in questions for w in question.weights], dtype=torch.float),
            "samples": [sample for _, sample, _ in items],
            "owners": owners(items),
            "texts": questions,
        }

    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the towers take."""
        return {key: batch[key] for key in ("pixel_values", "input_ids", "attention_mask", "image_index")}

    def loss(
        self, model: Any, batch: Batch, helper: Any = None, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch, numbers to log, and the trace."""
        answers = ("labels", "decoder_attention_mask", "answer_index", "answer_weights")
        return joined_loss(
            model, self.inputs(batch) | {key: batch[key] for key in answers}, teacher, len(batch["texts"])
        )

    def tagging_loss(self, model: Any, batch: Batch) -> Tensor:
        """How well the image's pooled token tells which answers its questions have; see `madtp.task.tags`."""
        most = [answer for answer, _ in self.frequency.most_common(1024)]
        tags = [[answer for question in sample.questions for answer in question.answers] for sample in batch["samples"]]
        return tagging_loss(model, batch["pixel_values"], tags, {a: self.texts.tokens(a, 0)[1] for a in most})

    def expect(self, trace: Trace, batch: Batch) -> Trace:
        """Fill in the decoder's work as if it generated the first reference answer of each question, or one word."""
        answered = torch.tensor([bool(question.answers) for question in batch["texts"]])
        first = torch.searchsorted(batch["answer_index"].cpu(), torch.arange(len(batch["texts"])))
        steps = torch.full((len(batch["texts"]),), 2)
        steps[answered] = batch["decoder_attention_mask"].sum(-1).cpu()[first[answered]] - 1
        trace.decoder_tokens, trace.decoder_pairs = steps, steps * (steps + 1) // 2
        trace.decoder_sequences = torch.ones_like(steps)
        return trace

    @torch.no_grad()
    def predict(
        self, model: Any, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
    ) -> tuple[list[Prediction], Encoded]:
        """Answer a batch's questions.

        Raises:
            InputError: rank inference without an answer list.
        """
        inputs = self.inputs(batch)
        encoded = model.encode(**inputs, provenance=provenance)
        if self.inference == "rank":
            if not answers:
                raise InputError(
                    "rank inference needs a list of answers", "--inference", "use generate, or data with answers"
                )
            ids, mask = (x.to(model.device) for x in self.texts.said(answers))
            best = model.rank(**inputs, answer_ids=ids, answer_mask=mask, k=self.top_k, encoded=encoded)
            texts = [answers[i] for i in best.tolist()]
        else:
            ids = model.generate(**inputs, encoded=encoded, max_new_tokens=10, num_beams=1, do_sample=False)
            texts = [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        predictions = [
            Prediction(q.question_id, q.text, text, q, sample.image_id, sample.objects, q.kind)
            for q, text, sample in zip(batch["texts"], texts, batch["owners"], strict=True)
        ]
        return predictions, encoded

    def finish(self, model: Any, predictions: list[Prediction]) -> Scored:
        """Accuracy in [0, 1], higher = better, over the questions whose answers are known; none where none are.

        The official VQA accuracy where every question has human references, else exact match: `scoring` says which, and
        how it is for every question type and answer type that the data names.
        """
        known = [p for p in predictions if p.truth.answers]
        if not known:
            return Scored(predictions)
        given, official = [p.answer for p in known], all(len(p.truth.references) > 1 for p in known)
        if official:
            accuracy = vqa_accuracy(given, [p.truth.references for p in known])
        else:
            accuracy = exact_accuracy(given, [self.words_for(p)[1] for p in known])
        scoring: dict[str, Any] = {"official": official}
        for name, kinds in (
            ("by_question_type", [p.truth.kind for p in known]),
            ("by_answer_type", [p.truth.answer_kind for p in known]),
        ):
            if any(kinds):
                scoring[name] = by_group(accuracy.per_question, kinds)
        return Scored(predictions, {"accuracy": accuracy.overall}, scoring)

    def words_for(self, prediction: Prediction) -> tuple[str, str]:
        """The answer and the heaviest reference."""
        truth = prediction.truth
        return prediction.answer, truth.answers[int(np.argmax(truth.weights))] if truth.answers else ""

    def marks(self, scored: Scored) -> list[float | None]:
        """The official accuracy of each answer, 0..1, where every question has human references; else exact match."""
        known = [p.truth.references for p in scored.predictions if p.truth.answers]
        if any(len(references) < 2 for references in known):
            return super().marks(scored)
        return [vqa_score(p.answer, p.truth.references) if p.truth.answers else None for p in scored.predictions]

    def write(self, path: Path, scored: Scored) -> None:
        """VQA's JSON; see `write_vqa`."""
        write_vqa(path, [(p.id, p.answer) for p in scored.predictions])

    def example(self, images: Sequence[str | ImageSource], *texts: str) -> Item:
        """One picture of the user's and questions about it, as the data set would give them."""
        pixels, files = self._read_pictures(images, 1)
        questions = tuple(Question(text, ("?",), (1.0,), str(i)) for i, text in enumerate(texts))
        return pixels, VqaSample(str(images[0]), files[0], questions), list(questions)
