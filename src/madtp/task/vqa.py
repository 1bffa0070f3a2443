"""Visual question answering: how to batch it, its loss, its answers and its metrics."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import BlipProcessor

from madtp.cost.flops import Flops, count, count_dense
from madtp.data.images import ImageFile
from madtp.data.sample import Data, Question, VqaSample
from madtp.errors import InputError
from madtp.metric.vqa import exact_accuracy, vqa_accuracy
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.output import Encoded
from madtp.model.shape import shape_of
from madtp.prune import Trace

Inference = Literal["generate", "rank"]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """One answered question."""

    question_id: str
    question: str
    answer: str
    truth: Question
    image_id: str
    objects: int | None


class VqaDataset(Dataset[tuple[Tensor, VqaSample, list[Question]]]):
    """Pixels and questions of one image; with `per_image`, a random few questions, drawn anew every epoch.

    Args:
        data: the split.
        processor: of the model.
        per_image: most questions of an image in one epoch; None = all, in order.
        seed: of the draw.
        shift: most pixels by which a training image is moved, edges repeated.
        frequency: of answers; questions whose answer is rare are drawn more often, else "yes" and "no" drown the rest.
        cache: keep prepared pixels in memory (for small images).
    """

    def __init__(
        self,
        data: Data[VqaSample],
        processor: BlipProcessor,
        per_image: int | None = None,
        seed: int = 0,
        shift: int = 0,
        frequency: Mapping[str, int] | None = None,
        cache: bool = True,
    ) -> None:
        self.data, self.processor, self.per_image, self.seed, self.shift = data, processor, per_image, seed, shift
        self.epoch = 0
        self.frequency = frequency or {}
        self._pixels: dict[int, Tensor] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.data)

    def pixels(self, index: int) -> Tensor:
        """`[3, height, width]` as the image tower takes it."""
        if self._pixels is not None and index in self._pixels:
            return self._pixels[index]
        image = self.data[index].image.open()
        pixels: Tensor = self.processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        if self._pixels is not None and pixels.numel() <= 1 << 17:
            self._pixels[index] = pixels
        return pixels

    def __getitem__(self, index: int) -> tuple[Tensor, VqaSample, list[Question]]:
        sample = self.data[index]
        pixels, questions = self.pixels(index), list(sample.questions)
        # Drawn from (seed, epoch, index), not from a running generator: a resumed run draws the same.
        draw = np.random.default_rng((self.seed, self.epoch, index))
        if self.per_image is not None and len(questions) > self.per_image:
            rarity = np.array([1 / self.frequency.get(question.answers[0], 1) for question in questions])
            some = draw.choice(len(questions), self.per_image, replace=False, p=rarity / rarity.sum())
            questions = [questions[i] for i in sorted(some)]
        if self.shift:
            pixels = _shifted(pixels, *(int(x) for x in draw.integers(-self.shift, self.shift + 1, 2)))
        return pixels, sample, questions


def _shifted(pixels: Tensor, down: int, right: int) -> Tensor:
    rows = (torch.arange(pixels.shape[1]) - down).clamp(0, pixels.shape[1] - 1)
    columns = (torch.arange(pixels.shape[2]) - right).clamp(0, pixels.shape[2] - 1)
    return pixels[:, rows][:, :, columns]


class VqaTask:
    """Everything the loops need to know about VQA.

    Args:
        processor: image processor and tokenizer of the model.
        inference: "generate" (free text) or "rank" (over the data's closed answer list).
        top_k: answers that `rank` scores whole.
    """

    name = "vqa"
    higher_is_better = "accuracy"

    def __init__(self, processor: BlipProcessor, inference: Inference = "generate", top_k: int = 128) -> None:
        self.processor, self.inference, self.top_k = processor, inference, top_k
        self.frequency: Counter[str] = Counter()  # of answers, in the data last trained on
        self.tokenizer = processor.tokenizer
        self._ids: dict[str, list[int]] = {}

    def dataset(self, data: Data[VqaSample], *, training: bool = False, **options: Any) -> VqaDataset:
        """The split as a torch data set; `options` as `VqaDataset` takes them, used in training only."""
        if not training:
            return VqaDataset(data, self.processor)
        every = (answer for sample in data.samples for question in sample.questions for answer in question.answers)
        self.frequency = Counter(every)
        return VqaDataset(data, self.processor, frequency=self.frequency, **options)

    def _tokens(self, text: str, first: int) -> list[int]:
        if text not in self._ids:
            if len(self._ids) > 100_000:
                self._ids.clear()
            self._ids[text] = self.tokenizer(text, truncation=True, max_length=35).input_ids[1:]
        return [first, *self._ids[text]]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(width) < lengths[:, None]).long()

    def questions(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        """`[q, l]` ids and mask of questions; the first token is [ENC] where the vocabulary has it (BLIP's way)."""
        enc = self.tokenizer.convert_tokens_to_ids("[ENC]")
        first = self.tokenizer.cls_token_id if enc in (None, self.tokenizer.unk_token_id) else enc
        return self._padded([self._tokens(text, first) for text in texts])

    def answers(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        """`[a, l]` ids and mask of answers, from the decoder's start token to its end token."""
        start = self.tokenizer.bos_token_id
        return self._padded(
            [self._tokens(text, self.tokenizer.cls_token_id if start is None else start) for text in texts]
        )

    def collate(self, items: Sequence[tuple[Tensor, VqaSample, list[Question]]]) -> Batch:
        """Images once each, their questions in order, every reference answer with its weight."""
        questions = [question for _, _, some in items for question in some]
        input_ids, attention_mask = self.questions(question.text for question in questions)
        labels, label_mask = self.answers(answer for question in questions for answer in question.answers)
        return {
            "pixel_values": torch.stack([pixels for pixels, _, _ in items]),
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "image_index": torch.tensor([i for i, (_, _, some) in enumerate(items) for _ in some]),
            "labels": labels,
            "decoder_attention_mask": label_mask,
            "answer_index": torch.tensor([i for i, question in enumerate(questions) for _ in question.answers]),
            "answer_weights": torch.tensor([w for question in questions for w in question.weights]),
            "samples": [sample for _, sample, _ in items],
            "questions": questions,
        }

    @staticmethod
    def inputs(batch: Batch) -> Batch:
        """The part of a batch that the towers take."""
        return {key: batch[key] for key in ("pixel_values", "input_ids", "attention_mask", "image_index")}

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch, numbers to log, and the trace."""
        answers = ("labels", "decoder_attention_mask", "answer_index", "answer_weights")
        output = model(**self.inputs(batch), **{key: batch[key] for key in answers})
        logs = {"loss_task": float(output.loss_task.detach())}
        if output.loss_align is not None:
            logs["loss_align"] = float(output.loss_align.detach())
        return output.loss, logs, output.trace

    def tagging_loss(self, model: Any, batch: Batch) -> Tensor:
        """How well the image's pooled token tells which answers its questions have; trains the image tower alone.

        From scratch, an image tower learns shapes late: most questions cannot be answered yet, and their gradient is
        noise. This loss asks for every answer on its own (binary cross-entropy, summed over answers): what is learned
        already stays out of the way of what is not. It needs no parameters of its own: the classifier is the decoder's
        word embedding of the answer's first token.
        """
        most = [answer for answer, _ in self.frequency.most_common(1024)]
        column = {answer: i for i, answer in enumerate(most)}
        first = torch.tensor([self._tokens(answer, 0)[1] for answer in most], device=batch["pixel_values"].device)
        present = torch.zeros(len(batch["samples"]), len(most))
        for i, sample in enumerate(batch["samples"]):
            for question in sample.questions:
                present[i, [column[answer] for answer in question.answers if answer in column]] = 1.0
        words = model.text_decoder.get_output_embeddings().weight.index_select(0, first)
        logits = model.see(batch["pixel_values"]).first().float() @ words.float().T
        present = present.to(logits.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, present, reduction="sum") / len(present)

    def expect_answers(self, trace: Trace, batch: Batch) -> Trace:
        """Fill in the decoder's work as if it generated the first reference answer of each question."""
        first = torch.searchsorted(batch["answer_index"].cpu(), torch.arange(len(batch["questions"])))
        steps = batch["decoder_attention_mask"].sum(-1).cpu()[first] - 1
        trace.decoder_tokens, trace.decoder_pairs = steps, steps * (steps + 1) // 2
        trace.decoder_sequences = torch.ones_like(steps)
        return trace

    @torch.no_grad()
    def predict(
        self, model: MadtpBlipForQuestionAnswering, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
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
            ids, mask = (x.to(model.device) for x in self.answers(answers))
            best = model.rank(**inputs, answer_ids=ids, answer_mask=mask, k=self.top_k, encoded=encoded)
            texts = [answers[i] for i in best.tolist()]
        else:
            ids = model.generate(**inputs, encoded=encoded, max_new_tokens=10, num_beams=1, do_sample=False)
            texts = [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        samples = [batch["samples"][i] for i in batch["image_index"].tolist()]
        predictions = [
            Prediction(question.question_id, question.text, text, question, sample.image_id, sample.objects)
            for question, text, sample in zip(batch["questions"], texts, samples, strict=True)
        ]
        return predictions, encoded

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Accuracy in [0, 1], higher = better.

        The official VQA accuracy where every question has human references, else exact match.
        """
        given = [p.answer for p in predictions]
        if predictions and all(len(p.truth.references) > 1 for p in predictions):
            return {"accuracy": vqa_accuracy(given, [p.truth.references for p in predictions]).overall}
        best = [p.truth.answers[int(np.argmax(p.truth.weights))] for p in predictions]
        return {"accuracy": exact_accuracy(given, best)}

    def example(self, image: str, text: str) -> tuple[Tensor, VqaSample, list[Question]]:
        """One picture of the user's and a question about it, as the data set would give it."""
        question = Question(text, ("?",), (1.0,), "0")
        sample = VqaSample(image, ImageFile(image), (question,))
        pixels = self.processor.image_processor(sample.image.open(), return_tensors="pt")["pixel_values"][0]
        return pixels, sample, [question]


def cost(model: MadtpBlipForQuestionAnswering, trace: Trace) -> tuple[Flops, Flops]:
    """GFLOPs per question of what a trace records, and of the dense model on the same inputs."""
    shape = shape_of(model)
    return count(shape, trace), count_dense(shape, trace)
