"""What a question-answering data set is to the rest of the library, and the one way to load one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from madtp.data.images import ImageSource
from madtp.errors import InputError

SPLITS = ("train", "val", "test")


def is_text(text: str) -> bool:
    """False for a string with half a character (a lone surrogate), which no tokenizer takes."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a picture.

    Args:
        text: the question.
        answers: distinct reference answers, at least one.
        weights: one positive weight per answer, sum 1 (one answer: ``(1.0,)``).
        question_id: unique within the split.
        kind: question type ("count", "color", ...) or "" where the data names none.
        references: the raw human answers for VQA accuracy where there are 10, else empty.

    Raises:
        ValueError: answers repeat or are missing, or the weights do not fit them.
    """

    text: str
    answers: tuple[str, ...]
    weights: tuple[float, ...]
    question_id: str
    kind: str = ""
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.answers or len(set(self.answers)) != len(self.answers):
            raise ValueError(f"answers: {self.answers!r}, expected at least one and no two the same")
        if len(self.weights) != len(self.answers) or min(self.weights) <= 0 or not math.isclose(sum(self.weights), 1.0):
            raise ValueError(f"weights: {self.weights!r}, expected {len(self.answers)} positive numbers that sum to 1")


@dataclass(frozen=True, slots=True)
class VqaSample:
    """One picture with all its questions, so that the image tower runs once a picture.

    Args:
        image_id: unique within the split.
        image: where the picture comes from; ``image.open()`` gives PIL RGB.
        questions: its questions.
        objects: number of objects in the picture where that is known (scenes), else None.
    """

    image_id: str
    image: ImageSource
    questions: tuple[Question, ...]
    objects: int | None = None


@dataclass(frozen=True)
class VqaData(Sequence[VqaSample]):
    """One split of a question-answering data set: a sequence of pictures.

    Args:
        samples: the pictures with their questions.
        answers: the closed answer list for rank inference; empty where there is none.
        name: what the data set is called in reports, e.g. ``"scenes:0:8000"``.
        split: "train", "val" or "test".
    """

    samples: tuple[VqaSample, ...]
    answers: tuple[str, ...]
    name: str
    split: str

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> VqaSample: ...
    @overload
    def __getitem__(self, index: slice) -> "VqaData": ...
    def __getitem__(self, index: int | slice) -> "VqaSample | VqaData":
        """The picture at ``index``, or for a slice the same split cut down to those pictures."""
        if isinstance(index, slice):
            return replace(self, samples=self.samples[index])
        return self.samples[index]

    @property
    def n_questions(self) -> int:
        """Number of questions over all pictures."""
        return sum(len(sample.questions) for sample in self.samples)


def load_vqa(source: str | Path, split: str = "train", *, limit: int | None = None) -> VqaData:
    """Load one split of a question-answering data set; all that can be checked without decoding pictures is checked.

    Args:
        source: ``scenes``, ``scenes:SEED`` or ``scenes:SEED:N_TRAIN`` (pictures generated in memory, see
            `madtp.data.scenes`), or a folder in easy-VQA's form (see `madtp.data.easy_vqa`), among them those that
            `madtp.data.scenes.write_scenes` makes. A folder that happens to be called "scenes" is ``./scenes``.
        split: "train", "val" or "test".
        limit: keep only the first this many pictures (with all their questions); None keeps all.

    Raises:
        InputError: unknown split, wrong limit, no such source, or a fault in its files.
    """
    # The formats build on the types above, so they are imported here and not at the top.
    from madtp.data.easy_vqa import load_easy_vqa
    from madtp.data.scenes import load_scenes, parse_scenes

    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", "split", f"use one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"{limit} pictures are none", "limit", "use 1 or more")
    if isinstance(source, str) and source.split(":")[0] == "scenes":
        seed, n_train = parse_scenes(source)
        return load_scenes(split, seed=seed, n_train=n_train, limit=limit)
    return load_easy_vqa(source, split, limit=limit)
