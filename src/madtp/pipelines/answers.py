"""Pipelines of the tasks that answer in words: captions, questions, statements."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from madtp.answer import answer, check_texts
from madtp.data.images import ImageSource
from madtp.errors import InputError
from madtp.pipelines.base import Pipeline, asked, best_first, joined, pairs_of, picture, shaped
from madtp.task.registry import make_task

# What `generate` calls them -> what `CaptionTask` does.
GENERATION = {"num_beams": "beams", "max_length": "longest", "min_length": "shortest"}


class CaptionPipeline(Pipeline):
    """Says what is in pictures: ``pipe("a.png") -> [{"generated_text": "two cats"}]``."""

    def __call__(
        self,
        images: Any,
        prompt: str | None = None,
        max_new_tokens: int | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """As "image-to-text" was called.

        Args:
            images: a picture, or many: a list, or anything that can be iterated over, whose captions come one by one.
            prompt: begins every caption and is shown; None = BLIP's own, which is not shown.
            max_new_tokens: of a caption, behind the prompt.
            generate_kwargs: `num_beams`, `max_length`, `min_length`, `max_new_tokens`; default: as `madtp predict`.
            batch_size: pictures a batch.

        Returns:
            ``[{"generated_text": ...}]``; of many pictures a list of these, of an iterator an iterator of these.

        Raises:
            InputError: a picture cannot be had, or an argument is wrong.
        """
        task = self._task(prompt, max_new_tokens, generate_kwargs or {})

        def run(batch: list[ImageSource]) -> list[list[dict[str, str]]]:
            said = answer(self.model, task, [task.example([image]) for image in batch])
            begin = "" if prompt is None else f"{prompt.strip()} "
            return [[{"generated_text": f"{begin}{one.text}".strip()}] for (one,) in said]

        return shaped(images, lambda some: self.batched(map(picture, some), run, batch_size))

    def _task(self, prompt: str | None, max_new_tokens: int | None, generation: dict[str, Any]) -> Any:
        """The pipeline's task, or one of other settings."""
        generation = dict(generation)
        if max_new_tokens is not None:
            generation["max_new_tokens"] = max_new_tokens
        new = generation.pop("max_new_tokens", None)
        if unknown := sorted(set(generation) - set(GENERATION)):
            raise InputError(f"{', '.join(unknown)} is not known", "generate_kwargs", f"use {', '.join(GENERATION)}")
        options = {GENERATION[name]: value for name, value in generation.items()}
        if prompt is None and new is None and not options:
            return self.task
        own: Any = self.task
        options = {"prompt": own.prompt if prompt is None else prompt, "beams": own.beams, **options}
        options = {"longest": own.longest, "shortest": own.shortest, **options}
        made: Any = make_task("caption", self.processor, **options)
        if new is not None:
            made.longest = made.prompt_tokens + new
            made.shortest = min(made.shortest, made.longest)
        return made


class VqaPipeline(Pipeline):
    """Answers questions: ``pipe("a.png", "what color is it?") -> [{"answer": "red"}]``."""

    def __call__(
        self,
        image: Any = None,
        question: str | Sequence[str] | None = None,
        *,
        choices: Sequence[str] | None = None,
        top_k: int | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """As "visual-question-answering" was called.

        Args:
            image: a picture; several, all asked `question`; or ``{"image": ..., "question": ...}``, or a list of
                these, or anything that can be iterated over and holds these, whose answers come one by one.
            question: one, or several about one picture, which then runs through the image tower once.
            choices: answer by the likeliest of these instead of in free words.
            top_k: for callers of old; there is one answer, whatever it is.
            batch_size: pictures a batch.

        Returns:
            ``[{"answer": ...}]``; of many questions a list of these, of an iterator an iterator of these.

        Raises:
            InputError: a picture cannot be had, a question is missing or empty, or both are lists.
        """
        task, choices = self.task, check_texts(choices or (), "choices")
        if choices:
            task = make_task("vqa", self.processor, inference="rank")

        def run(batch: list[tuple[Any, list[str]]]) -> list[list[list[dict[str, str]]]]:
            items = [task.example([picture(image)], *questions) for image, questions in batch]
            return [[[{"answer": one.text}] for one in some] for some in answer(self.model, task, items, choices)]

        def answers(many: Iterable[Any]) -> Iterator[list[dict[str, str]]]:
            # texts in a row about the very same picture share its run through the image tower
            for some in self.batched(joined(asked(one, "image", "question") for one in many), run, batch_size):
                yield from some

        return shaped(pairs_of(image, question, "image", "question"), answers)


class ReasoningPipeline(Pipeline):
    """Judges statements: ``pipe(["l.png", "r.png"], "both are red") -> [{"answer": "true", "score": 0.9}, ...]``."""

    def __call__(self, images: Any = None, statement: str | None = None, *, batch_size: int | None = None) -> Any:
        """Is the statement true of two pictures, or of one?

        Args:
            images: ``[left, right]`` or one picture, with `statement`; or ``{"images": ..., "statement": ...}``, or a
                list of these, or anything that can be iterated over and holds these.
            statement: about them.
            batch_size: statements a batch.

        Returns:
            ``[{"answer": "true", "score": 0.9}, {"answer": "false", "score": 0.1}]``, the likelier first; of many
            statements a list of these, of an iterator an iterator of these.

        Raises:
            InputError: a picture cannot be had, or a statement is missing or empty.
        """

        def run(batch: list[tuple[Any, str]]) -> list[list[dict[str, Any]]]:
            items = []
            for of, text in batch:
                pair = of if isinstance(of, list | tuple) else [of]
                items.append(self.task.example([picture(image) for image in pair], text))
            return [best_first(one.scores.items(), "answer") for (one,) in answer(self.model, self.task, items)]

        given = {"images": images, "statement": statement} if statement is not None else images
        return shaped(
            given,
            lambda some: self.batched((asked(one, "images", "statement") for one in some), run, batch_size),
        )
