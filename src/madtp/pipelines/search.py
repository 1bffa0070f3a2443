"""The pipeline of retrieval: texts for pictures, and features for an index."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from madtp.answer import Seen, check_texts, likeness, match, read, see
from madtp.errors import InputError
from madtp.pipelines.base import Picture, Pipeline, best_first, shaped


class RetrievalPipeline(Pipeline):
    """Finds texts for pictures: ``pipe("a.png", ["a cat", "a dog"]) -> [{"score": 0.9, "label": "a cat"}, ...]``."""

    def __call__(
        self,
        image: Any,
        candidate_labels: Sequence[str],
        hypothesis_template: str = "{}",
        batch_size: int | None = None,
    ) -> Any:
        """As "zero-shot-image-classification" is called.

        Args:
            image: a picture; or many: a list, or anything that can be iterated over.
            candidate_labels: texts to compare with.
            hypothesis_template: how a label becomes a text; transformers' own is "This is a photo of {}."
            batch_size: pictures a batch.

        Returns:
            ``[{"score": ..., "label": ...}]``, the best first; of many pictures a list of these, of an iterator an
            iterator of these. CLIP's scores add up to 1 over the labels; BLIP's are, label by label, the matching
            head's probability that it describes the picture.

        Raises:
            InputError: a picture cannot be had, or there is no label or an empty one.
        """
        labels = check_texts(
            [candidate_labels] if isinstance(candidate_labels, str) else list(candidate_labels), "candidate_labels"
        )
        if not labels:
            raise InputError("there are none", "candidate_labels", "give one or more texts")
        texts = [hypothesis_template.format(label) for label in labels]
        features = torch.stack(read(self.model, self.task, texts)) if self.clip else None

        def run(batch: list[Tensor]) -> list[list[dict[str, Any]]]:
            seen = see(self.model, batch)
            scores = self._scores(seen, texts, features)
            return [best_first(zip(labels, row, strict=True), "label") for row in scores]

        return shaped(image, lambda some: self.batched(self._pixels(some), run, batch_size))

    @property
    def clip(self) -> bool:
        """Whether the model is a CLIP, which has no matching head."""
        return bool(getattr(self.task, "clip", False))

    def _scores(self, seen: list[Seen], texts: list[str], features: Tensor | None) -> list[list[float]]:
        if features is not None:
            return likeness(self.model, torch.stack([one.feature for one in seen]), features).tolist()
        return [match(self.model, self.task, [(one, text) for text in texts]) for one in seen]

    def embed(self, images: Any = None, texts: Sequence[str] | None = None, batch_size: int | None = None) -> Tensor:
        """`[n, d]` features of length 1, of pictures or of texts: their products are cosines, for an index.

        Raises:
            InputError: neither or both are given, or one cannot be had.
        """
        if (images is None) == (texts is None):
            raise InputError("give images or texts", "embed", "one of them")
        if texts is None:
            many = [images] if isinstance(images, Picture) else images
            found = list(
                self.batched(self._pixels(many), lambda some: [s.feature for s in see(self.model, some)], batch_size)
            )
        else:
            said = check_texts([texts] if isinstance(texts, str) else list(texts), "texts")
            found = list(self.batched(said, lambda some: read(self.model, self.task, some), batch_size))
        return torch.stack(found) if found else torch.zeros(0, self.model.feature_width)
