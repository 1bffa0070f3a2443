"""Image-text retrieval: find the pictures of a text and the texts of a picture."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from madtp.data.images import ImageSource
from madtp.data.sample import CaptionSample, Data
from madtp.data.stream import Stream, number_of
from madtp.errors import InputError
from madtp.metric.retrieval import KS, Ranking, recalls_of_rankings, topk_chunked
from madtp.metric.submission import write_rankings
from madtp.model.ragged import Ragged
from madtp.prune import Trace
from madtp.task.base import Batch, Item, Prediction, Scored, Task, owners, picture_index
from madtp.task.contrast import MomentumContrast
from madtp.task.distill import Teacher
from madtp.task.words import Words, tell_if_cut

BLIP_TEMPERATURE = 0.07  # of the contrast, where training starts
RERANKED = 128
"""Candidates that the matching head ranks anew, as BLIP does on Flickr30k."""


class RetrievalTask(Task):
    """Everything the loops need to know about retrieval, with BLIP or CLIP.

    Args:
        processor: of the model; BLIP's and CLIP's texts begin and end in other ways.
        k_test: candidates of every picture and text that BLIP's matching head ranks anew; 0 = none.
        momentum: share of themselves that the momentum towers keep a step; 0 = there are none.
        queue: pairs of earlier steps to contrast with; 0 = those of the batch alone.

    Raises:
        InputError: candidates to rank anew with CLIP, which has no head for it.
    """

    name = "retrieval"
    higher_is_better = "r_mean"
    text_name = "captions"
    judged = False
    options = frozenset({"k_test", "momentum", "queue"})

    def __init__(self, processor: Any, k_test: int | None = None, momentum: float = 0.995, queue: int = 57600) -> None:
        super().__init__(processor)
        self.clip = "CLIP" in type(processor).__name__
        if self.clip and k_test:
            raise InputError("CLIP has no matching head to re-rank with", "--k-test", "leave it out")
        self.k_test = (0 if self.clip else RERANKED) if k_test is None else k_test
        self.momentum, self.queue = momentum, queue
        self.texts = Words(self.tokenizer)
        self._numbers: dict[str, int] | None = {}  # of the pictures of the data last trained on; None = by name
        self._told = False  # that texts are cut

    def settings(self) -> dict[str, Any]:
        """Of the training beside the model: a resumed run must have the same."""
        return {"momentum": self.momentum, "queue": self.queue}

    @staticmethod
    def words_of(data: Data[CaptionSample]) -> Iterator[str]:
        """The captions."""
        yield from (caption for sample in data.samples for caption in sample.captions)

    def dataset(self, data: Data[CaptionSample] | Stream, *, training: bool = False, **options: Any) -> Any:
        """The split as a torch data set; in training one caption of a picture an epoch, as pairs are contrasted."""
        if training:
            held = isinstance(data, Data)  # of a stream the names are not
            self._numbers = {sample.image_id: i for i, sample in enumerate(data.samples)} if held else None
            options["per_image"] = 1
        return super().dataset(data, training=training, **options)

    def quick(self) -> Self:
        """Without the match of every candidate: recall of the features alone."""
        other = copy.copy(self)
        other.k_test = 0
        return other

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`[q, l]` ids and mask of texts on their own."""
        if not self.clip:
            return self.texts.plain(captions)
        if not captions:
            return torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.long)
        found = self.tokenizer(list(captions), truncation=True, padding=True, return_tensors="pt")
        ids, mask = found["input_ids"], found["attention_mask"]
        longest = self.tokenizer.model_max_length
        for i in (mask.sum(-1) == longest).nonzero().view(-1).tolist():
            self._told = self._told or tell_if_cut(self.tokenizer, captions[i], longest)
        return ids, mask

    def collate(self, items: Sequence[Item]) -> Batch:
        """Pictures once each, their captions in order."""
        captions: list[str] = [caption for _, _, some in items for caption in some]
        input_ids, attention_mask = self.tokens(captions)
        return {
            "pixel_values": torch.cat([pixels for pixels, _, _ in items]),
            "image_index": picture_index(items)[0],
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "image_ids": torch.tensor([self._number(sample.image_id) for _, sample, _ in items]),
            "samples": [sample for _, sample, _ in items],
            "owners": owners(items),
            "texts": captions,
            # by their place in the sample: two captions of a picture may be the same words
            "text_ids": [f"{sample.image_id}#{k}" for _, sample, some in items for k in range(len(some))],
        }

    def _number(self, image_id: str) -> int:
        return number_of(image_id) if self._numbers is None else self._numbers.get(image_id, -1)

    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the towers take; BLIP judges every pair too."""
        inputs = {key: batch[key] for key in ("pixel_values", "input_ids", "attention_mask", "image_index")}
        return inputs if self.clip else {**inputs, "match": True, "match_token_id": self.texts.enc}

    def helper(self, model: Any, seed: int, ramp: int) -> MomentumContrast:
        """Momentum towers, queues and the temperature of the contrast; CLIP's own is where it starts."""
        temperature = float(model.logit_scale.detach().neg().exp()) if self.clip else BLIP_TEMPERATURE
        return MomentumContrast(
            model,
            self.queue if self.momentum else 0,
            self.momentum or None,
            ramp_steps=ramp,
            match_token_id=None if self.clip else self.texts.enc,
            seed=seed,
            temperature=temperature,
        )

    def loss(
        self, model: Any, batch: Batch, helper: Any = None, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, float], Trace]:
        """Training loss of a batch of pairs, numbers to log, and the trace."""
        pairs = {key: batch[key] for key in ("pixel_values", "input_ids", "attention_mask")}
        losses = helper(**pairs, image_ids=batch["image_ids"], provenance=teacher is not None)
        named = {"itc": losses.itc, "itm": losses.itm, "align": losses.align, "align_momentum": losses.align_momentum}
        logs = {f"loss_{name}": float(value.detach()) for name, value in named.items() if value is not None}
        if self.clip:  # what CLIP scales its logits by is what was learned here
            helper.model.logit_scale.data.copy_(-helper.temp.detach().log())
        total = losses.total(helper.model.pruning.alpha)
        if teacher is not None:
            distance = teacher.pair_distance(losses.image, losses.text, **pairs, temperature=helper.temp)
            logs["loss_distill"] = float(distance.detach())
            total = total + teacher.weight * distance
        return total, logs, losses.trace

    @torch.no_grad()
    def predict(
        self, model: Any, batch: Batch, answers: Sequence[str] = (), provenance: bool = False
    ) -> tuple[list[Prediction], Any]:
        """How well a batch's captions go with their pictures, and the features of both for `finish` to rank.

        The answer is the probability of the matching head, "match 0.93", or CLIP's cosine, "similarity 0.31". A picture
        without captions has a prediction too, without text or truth: it can be found for the captions of others.
        """
        paired = model.encode(**self.inputs(batch), provenance=provenance)
        features, read, index = paired.image.feature.cpu(), paired.text.feature.cpu(), batch["image_index"].cpu()
        tokens: list[tuple[Ragged, ...]] = [()] * len(features)
        if self.k_test:
            tokens = [(some,) for some in paired.image.tokens.split()]
        if self.clip:
            said = [f"similarity {x:.2f}" for x in (features[index] * read).sum(-1).tolist()]
        else:
            said = [f"match {x:.2f}" for x in paired.logits.float().softmax(-1)[:, 1].tolist()]
        texts = zip(batch["text_ids"], batch["texts"], said, read, strict=True)
        counts = index.bincount(minlength=len(features)).tolist()
        predictions = []
        for of, count, image, rest in zip(batch["samples"], counts, features, tokens, strict=True):
            about = of.image_id, of.objects, ""
            for number, caption, answer, text in islice(texts, count):
                predictions.append(Prediction(number, caption, answer, of.image_id, *about, (image, text, *rest)))
            if not count:
                predictions.append(Prediction("", "", "", None, *about, (image, image[:0], *rest)))
        return predictions, paired

    @torch.no_grad()
    def finish(self, model: Any, predictions: list[Prediction]) -> Scored:
        """Rank everything against everything; a prediction's answer is the picture found first for its caption."""
        first: dict[str, Prediction] = {}
        for p in predictions:
            first.setdefault(p.image_id, p)
        pictures, place = list(first), {name: i for i, name in enumerate(first)}
        asked = [p for p in predictions if p.truth is not None]
        if not asked:
            return Scored([])
        owner = torch.tensor([place[p.image_id] for p in asked])
        images = torch.stack([p.side[0] for p in first.values()])
        texts = torch.stack([p.side[1] for p in asked])
        if self.k_test:
            tokens = [p.side[2] for p in first.values()]
            ranked = self._rerank(model, images, texts, tokens, [p.text for p in asked])
        else:
            ranked = topk_chunked(images, texts, max(KS)), topk_chunked(texts, images, max(KS))
        names = [p.id for p in asked]
        texts_found, pictures_found = (
            [tuple(of[j] for j in row) for row in ranking.best(max(KS)).tolist()]
            for ranking, of in zip(ranked, (names, pictures), strict=True)
        )
        return Scored(
            [replace(p, answer=best[0], side=()) for p, best in zip(asked, pictures_found, strict=True)],
            recalls_of_rankings(*ranked, owner),
            {"k_test": self.k_test},
            dict(zip(pictures, texts_found, strict=True)),
            dict(zip(names, pictures_found, strict=True)),
        )

    def _rerank(
        self, model: Any, images: Tensor, texts: Tensor, tokens: list[Ragged], captions: list[str]
    ) -> tuple[Ranking, Ranking]:
        """BLIP's way: the best by features, ordered by feature similarity plus the matching head's logit."""
        found_texts, found_images = topk_chunked(images, texts, self.k_test), topk_chunked(texts, images, self.k_test)
        picture = torch.arange(len(images))[:, None].expand_as(found_texts.indices)
        logit = self._match(model, picture.flatten(), found_texts.indices.flatten(), tokens, captions)
        ranked_texts = Ranking(found_texts.indices, found_texts.scores + logit.view_as(found_texts.scores))
        text = torch.arange(len(texts))[:, None].expand_as(found_images.indices)
        logit = self._match(model, found_images.indices.flatten(), text.flatten(), tokens, captions)
        ranked_images = Ranking(found_images.indices, found_images.scores + logit.view_as(found_images.scores))
        return ranked_texts, ranked_images

    def _match(
        self, model: Any, image: Tensor, text: Tensor, tokens: list[Ragged], captions: list[str], chunk: int = 256
    ) -> Tensor:
        """`[n]` logit of the matching head that each text describes its image."""
        logits = []
        for some_image, some_text in zip(image.split(chunk), text.split(chunk), strict=True):
            used, index = some_image.unique(return_inverse=True)
            ragged = Ragged.join([tokens[i] for i in used.tolist()], model.device)
            ids, mask = self.texts.looking(captions[i] for i in some_text.tolist())
            logits.append(
                model.match(ragged, index, ids.to(model.device), mask.to(model.device))[0][:, 1].float().cpu()
            )
        return torch.cat(logits)

    def words_for(self, prediction: Prediction) -> tuple[str, str]:
        """The picture found and the right one; before `finish` how well picture and caption go together."""
        return prediction.answer, "" if prediction.side else prediction.truth

    def write(self, path: Path, scored: Scored) -> None:
        """The ten best both ways; see `write_rankings`."""
        write_rankings(path, scored.captions_found, scored.pictures_found)

    def example(self, images: Sequence[str | ImageSource], *texts: str) -> Item:
        """One picture of the user's and texts, as the data set would give them."""
        pixels, files = self._read_pictures(images, 1)
        return pixels, CaptionSample(str(images[0]), files[0], texts), list(texts)
