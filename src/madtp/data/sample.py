"""What a data set is to the rest of the library: a sequence of pictures, each with the texts that belong to it.

One sample is what passes the image tower once, so that a picture's questions, statements or captions share that work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, overload

from madtp.data.images import ImageSource

SPLITS = ("train", "val", "test")


def is_text(text: str) -> bool:
    """False for a string with half a character (a lone surrogate), which no tokenizer takes."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


class Sample(Protocol):
    """What every sample has."""

    @property
    def image_id(self) -> str:
        """Unique within the split."""
        ...

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """The picture; two for statements about two (the very same object twice where there is one)."""
        ...

    @property
    def texts(self) -> Sequence[object]:
        """Its questions, statements or captions."""
        ...

    @property
    def objects(self) -> int | None:
        """Number of objects in the picture(s) where that is known (scenes), else None."""
        ...


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a picture.

    Args:
        text: the question.
        answers: distinct reference answers, the most given one first; none = not known (a hidden test).
        weights: one positive weight per answer, sum 1 (one answer: ``(1.0,)``); less for a question that is to count
            for less in training.
        question_id: unique within the split.
        kind: question type ("count", "color", ...) or "" where the data names none.
        references: the raw human answers for VQA accuracy where there are 10, else empty.
        answer_kind: answer type ("yes/no", "number", "other") or "" where the data names none.

    Raises:
        ValueError: answers repeat, or the weights do not fit them.
    """

    text: str
    answers: tuple[str, ...]
    weights: tuple[float, ...]
    question_id: str
    kind: str = ""
    references: tuple[str, ...] = ()
    answer_kind: str = ""

    def __post_init__(self) -> None:
        if len(set(self.answers)) != len(self.answers):
            raise ValueError(f"answers: {self.answers!r}, expected no two the same")
        fit = len(self.weights) == len(self.answers) and all(weight > 0 for weight in self.weights)
        if not fit or sum(self.weights) > 1 + 1e-9:
            raise ValueError(f"weights: {self.weights!r}, expected {len(self.answers)} positive numbers, sum 1 or less")


@dataclass(frozen=True, slots=True)
class VqaSample:
    """One picture with all its questions.

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

    @property
    def images(self) -> tuple[ImageSource]:
        """The picture."""
        return (self.image,)

    @property
    def texts(self) -> tuple[Question, ...]:
        """The questions."""
        return self.questions


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement about two pictures.

    Args:
        text: the statement.
        label: whether it is true of them; None = not known (a hidden test).
        statement_id: unique within the split, e.g. ``"dev-850-0-0"``.
        group: statements of one group are the same sentence about other pictures; consistency asks for all of a
            group to be judged right. "" = a group of its own.
        kind: type of statement or "" where the data names none.
    """

    text: str
    label: bool | None
    statement_id: str
    group: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class PairSample:
    """Two pictures with the statements about them.

    Args:
        image_id: of the pair, unique within the split.
        images: left and right; the very same object twice where there is one picture (NLVR).
        statements: about the two.
        objects: in both pictures together, where that is known, else None.
    """

    image_id: str
    images: tuple[ImageSource, ImageSource]
    statements: tuple[Statement, ...]
    objects: int | None = None

    @property
    def texts(self) -> tuple[Statement, ...]:
        """The statements."""
        return self.statements


@dataclass(frozen=True, slots=True)
class CaptionSample:
    """One picture with its captions, for captioning and retrieval.

    Args:
        image_id: unique within the split.
        image: where the picture comes from.
        captions: what people said of it; empty where it is only to be captioned.
        objects: number of objects where that is known, else None.
    """

    image_id: str
    image: ImageSource
    captions: tuple[str, ...]
    objects: int | None = None

    @property
    def images(self) -> tuple[ImageSource]:
        """The picture."""
        return (self.image,)

    @property
    def texts(self) -> tuple[str, ...]:
        """The captions."""
        return self.captions


@dataclass(frozen=True)
class Data(Sequence[S], Generic[S]):
    """One split of a data set: a sequence of samples of one kind.

    Args:
        samples: the pictures with their texts.
        name: what the data set is called in reports, e.g. ``"scenes:0:8000"``.
        split: "train", "val" or "test".
        answers: the closed answer list for rank inference (VQA); empty where there is none.
    """

    samples: tuple[S, ...]
    name: str
    split: str
    answers: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> "Data[S]": ...
    def __getitem__(self, index: int | slice) -> "S | Data[S]":
        """The sample at ``index``, or for a slice the same split cut down to those samples."""
        if isinstance(index, slice):
            return replace(self, samples=self.samples[index])
        return self.samples[index]

    @property
    def n_texts(self) -> int:
        """Number of questions, statements or captions over all samples."""
        return sum(len(sample.texts) for sample in self.samples)

    @property
    def hidden(self) -> int:
        """Number of questions without answer, statements without label and pictures without captions.

        Where it is not 0, the split can be predicted but not scored, nor trained on.
        """
        return sum(not _known(text) for sample in self.samples for text in sample.texts or ("",))


def _known(text: object) -> bool:
    if isinstance(text, Question):
        return bool(text.answers)
    return text.label is not None if isinstance(text, Statement) else bool(text)
