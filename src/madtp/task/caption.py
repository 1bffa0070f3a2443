"""Captioning: say what is in a picture."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from madtp.data.images import ImageSource
from madtp.data.sample import CaptionSample, Data
from madtp.errors import InputError
from madtp.metric.submission import coco_image_id, write_captions
from madtp.model.output import Encoded
from madtp.prune import Trace
from madtp.task.base import Batch, Item, Prediction, Scored, Task, picture_index
from madtp.task.distill import Teacher, joined_loss
from madtp.task.words import Words

PROMPT = "a picture of"


class CaptionTask(Task):
    """Everything the loops need to know about captioning.

    Args:
        processor: image processor and tokenizer of the model.
        prompt: begins every caption; no loss is taken on it and it is not part of the answer.
        beams: of the search; 1 = greedy.
        longest, shortest: tokens of a generated caption; the start token, the prompt and the end count, as in BLIP.
        longest_text: most tokens of a training caption, counted so too.

    Raises:
        InputError: the prompt leaves no room for a caption.
    """

    name = "caption"
    higher_is_better = "cider"
    text_name = "captions"
    judged = False
    mark_name = "CIDEr"
    options = frozenset({"prompt", "beams", "longest", "shortest"})

    def __init__(
        self,
        processor: Any,
        prompt: str = PROMPT,
        beams: int = 3,
        longest: int = 30,
        shortest: int = 5,
        longest_text: int = 40,
    ) -> None:
        super().__init__(processor)
        self.prompt, self.beams, self.longest, self.shortest = prompt.strip(), beams, longest, shortest
        self.slow = True  # METEOR and SPICE too, where they can be had
        self.texts = Words(self.tokenizer, longest_text)
        room = min(longest, longest_text) - 2  # a word and the end
        if self.prompt_tokens > room:
            raise InputError(f"has {self.prompt_tokens} tokens", "--prompt", f"{room} leave room for a caption")

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, the start token included."""
        return len(self.texts.tokens(self.prompt, self.texts.dec)) - 1

    def _whole(self, caption: str) -> str:
        return f"{self.prompt} {caption}".strip()

    def quick(self) -> Self:
        """Without the scores that take Java programs."""
        other = copy.copy(self)
        other.slow = False
        return other

    def settings(self) -> dict[str, Any]:
        """The prompt, and the beams that the budget is for: a resumed run must have the same."""
        return {"prompt": self.prompt, "beams": self.beams}

    @staticmethod
    def words_of(data: Data[CaptionSample]) -> Iterator[str]:
        """The prompt and the captions."""
        yield PROMPT
        yield from (caption for sample in data.samples for caption in sample.captions)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Pictures once each, their captions in order, the prompt before each."""
        captions: list[str] = [caption for _, _, some in items for caption in some]
        ids, mask = self.texts.said(self._whole(caption) for caption in captions)
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, : self.prompt_tokens] = -100
        return {
            "pixel_values": torch.cat([pixels for pixels, _, _ in items]),
            "image_index": picture_index(items)[0],
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "samples": [sample for _, sample, _ in items],
            "owners": [sample for _, sample, _ in items],
            "texts": captions,
        }

    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the image tower takes."""
        return {"pixel_values": batch["pixel_values"]}

    def loss(
        self, model: Any, batch: Batch, helper: Any = None, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch, numbers to log, and the trace."""
        keys = ("pixel_values", "input_ids", "attention_mask", "labels", "image_index")
        told = (batch["labels"][:, 1:] != -100).sum()  # tokens
        return joined_loss(model, {key: batch[key] for key in keys}, teacher, told)

    def expect(self, trace: Trace, batch: Batch) -> Trace:
        """Fill in the decoder's work as if each beam gave the picture's first caption."""
        lengths = batch["attention_mask"].sum(-1).cpu() - 1
        pictures = len(batch["samples"])
        index = batch["image_index"].cpu()
        first = torch.searchsorted(index, torch.arange(pictures))
        known = index.bincount(minlength=pictures) > 0
        steps = torch.full((pictures,), self.longest - 1)
        steps[known] = lengths[first[known]]
        prompt = self.prompt_tokens  # read at once, every token of it looking at all
        trace.decoder_tokens = self.beams * steps
        trace.decoder_pairs = self.beams * (steps * (steps + 1) // 2 + prompt * (prompt - 1) // 2)
        trace.decoder_sequences = torch.full_like(steps, self.beams)
        trace.decoder_logits = self.beams * (steps - prompt + 1).clamp(min=1)
        trace.image_index = torch.arange(pictures)
        return trace

    @torch.no_grad()
    def predict(
        self, model: Any, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
    ) -> tuple[list[Prediction], Encoded]:
        """Caption a batch's pictures."""
        encoded = model.encode(batch["pixel_values"], provenance=provenance)
        prompt, _ = self.texts.said([self.prompt] * len(batch["samples"]))
        ids = model.generate(
            batch["pixel_values"],
            input_ids=prompt.to(model.device),
            encoded=encoded,
            num_beams=self.beams,
            do_sample=False,
            max_length=self.longest,
            min_length=self.shortest,
        )
        texts = self.tokenizer.batch_decode(ids[:, self.prompt_tokens :], skip_special_tokens=True)
        predictions = [
            Prediction(s.image_id, "", " ".join(text.split()), s.captions, s.image_id, s.objects)
            for s, text in zip(batch["samples"], texts, strict=True)
        ]
        return predictions, encoded

    def finish(self, model: Any, predictions: list[Prediction]) -> Scored:
        """CIDEr-D, BLEU and so on against the captions there are; none where there are none.

        `scoring` says which tokeniser was used (figures by "simple" compare only with others by it), and what is
        missing and why.
        """
        from madtp.metric.caption import caption_scores

        known = [p for p in predictions if p.truth]
        if not known:
            return Scored(predictions)
        scores = caption_scores([p.answer for p in known], [p.truth for p in known], slow=self.slow)
        scoring = {"tokenizer": scores.tokenizer, "left_out": dict(scores.left_out)}
        return Scored(predictions, dict(scores.values), scoring)

    def marks(self, scored: Scored) -> list[float | None]:
        """CIDEr-D of each caption, 0..10, n-grams weighed by the references of all."""
        from madtp.metric.caption import caption_scores

        known = [p for p in scored.predictions if p.truth]
        if not known:
            return [None] * len(scored.predictions)
        each = iter(caption_scores([p.answer for p in known], [p.truth for p in known], slow=False).cider_each)
        return [next(each) if p.truth else None for p in scored.predictions]

    def words_for(self, prediction: Prediction) -> tuple[str, str]:
        """The caption, and the first of the data's."""
        return prediction.answer, prediction.truth[0] if prediction.truth else ""

    def write(self, path: Path, scored: Scored) -> None:
        """COCO's JSON; see `write_captions`."""
        write_captions(path, [(coco_image_id(p.id), p.answer) for p in scored.predictions])

    def example(self, images: Sequence[str | ImageSource], *texts: str) -> Item:
        """One picture of the user's; texts are not looked at."""
        pixels, files = self._read_pictures(images, 1)
        return pixels, CaptionSample(str(images[0]), files[0], ()), []
