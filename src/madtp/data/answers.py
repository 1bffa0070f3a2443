"""The closed list of answers that rank inference chooses from, made from the answers of the training questions."""

from collections import Counter
from collections.abc import Iterable

from madtp.data.sample import Data, VqaSample
from madtp.errors import InputError
from madtp.metric.vqa import normalise

MIN_COUNT = 9
"""How often an answer must be given: the usual limit for VQAv2's train and val, which leaves about 3,100 answers."""


def build_answers(
    splits: Iterable[Data[VqaSample]], *, min_count: int = MIN_COUNT, top: int | None = None
) -> tuple[str, ...]:
    """Answers by how many questions have them as their most given answer, in the official normal form.

    Args:
        splits: whose questions count.
        min_count: keep answers of at least so many questions; not used with ``top``.
        top: keep so many answers instead.

    Returns:
        The answers, the most frequent first, equal counts in alphabetical order.

    Raises:
        InputError: no answer is frequent enough, or there are none at all.
    """
    questions = (question for data in splits for sample in data.samples for question in sample.questions)
    counts = Counter(normalise(question.answers[0]) for question in questions if question.answers)
    del counts[""]  # an article alone has no normal form
    ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
    kept = ranked[:top] if top is not None else [answer for answer in ranked if counts[answer] >= min_count]
    if not kept:
        most = f"the most frequent of {len(ranked)} has {counts[ranked[0]]}" if ranked else "there are none"
        raise InputError(f"no answer of {min_count} questions: {most}", "--min-count", "use a smaller one")
    return tuple(kept)
