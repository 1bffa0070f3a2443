"""Visual question answering: the official VQA accuracy, and plain exact match.

The official figure (Antol et al., "VQA: Visual Question Answering", ICCV 2015, section 5; rules published with the data
set) has quirks that move the score; they are kept, and named where they stand, so that figures compare.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = "zero one two three four five six seven eight nine ten"
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
    not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> Iterable[str]:
    return (word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'")


# The official table maps each spelling that lacks one apostrophe to the full one, with one entry the wrong way round.
# Its keys with a capital (`Im`, `Ive`, `Id've`) can never match a lowered answer, and are left out.
CONTRACTIONS = {short: word for word in _CONTRACTED.split() for short in _without_one_apostrophe(word)}
CONTRACTIONS["somebody'd"] = "somebodyd"

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes a regex flag where `re.sub` takes a count: no more than 32 periods go.
_MOST_PERIODS = 32


def normalise(text: str) -> str:
    """The official normal form of an answer: punctuation, case, number words, articles, contractions.

    A punctuation mark is deleted if it touches a space anywhere in the answer, or if the answer holds a comma between
    digits; else it becomes a space: ``"ice-cream"`` -> ``"ice cream"``, ``"1,000"`` -> ``"1000"``.
    """
    text = _one_line(text)
    delete_all = _COMMA_IN_NUMBER.search(text) is not None
    plain = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if delete_all or beside_space else " ")
    plain = _PERIOD.sub("", plain, count=_MOST_PERIODS)
    words = (NUMBER_WORDS.get(word, word) for word in plain.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_score(prediction: str, references: Sequence[str]) -> float:
    """Official VQA accuracy of one question, 0..1, higher = better.

    Mean over the human answers, each left out in turn, of ``min(1, matches among the others / 3)``. Answers are
    normalised only if the humans disagree: where all wrote the same, the prediction must equal it letter for letter.

    Args:
        prediction: the model's answer.
        references: the raw human answers, 10 in VQA.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("VQA accuracy needs at least one human answer per question")
    answers = [_one_line(answer) for answer in references]
    prediction = _one_line(prediction)
    if len(set(answers)) > 1:
        answers = [normalise(answer) for answer in answers]
        prediction = normalise(prediction)
    matches = answers.count(prediction)
    # Leaving out a matching answer leaves one match fewer; leaving out another leaves them all.
    return fmean(min(1.0, (matches - (answer == prediction)) / 3) for answer in answers)


@dataclass(frozen=True)
class VqaAccuracy:
    """VQA accuracy, official or exact, every figure 0..1, higher = better. Published: times 100, two digits.

    Attributes:
        overall: mean over all questions.
        per_question: one score a question, in the order given.
        per_group: mean by group of questions (question type, answer type); empty without groups.
    """

    overall: float
    per_question: tuple[float, ...]
    per_group: Mapping[Hashable, float]


def vqa_accuracy(
    predictions: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[Hashable] | None = None
) -> VqaAccuracy:
    """Official VQA accuracy of a set of questions.

    Args:
        predictions: one answer a question.
        references: the raw human answers of each question.
        groups: what each question belongs to, e.g. its question type.

    Raises:
        ValueError: no questions, or lengths that differ.
    """
    _check_lengths(predictions, references, *([] if groups is None else [groups]))
    scores = tuple(vqa_score(*pair) for pair in zip(predictions, references, strict=True))
    return VqaAccuracy(fmean(scores), scores, {} if groups is None else by_group(scores, groups))


def by_group(scores: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """Mean score of each group, in the order in which they come up."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for group, score in zip(groups, scores, strict=True):
        members[group].append(score)
    return {group: fmean(of_group) for group, of_group in members.items()}


def exact_match(prediction: str, answer: str) -> bool:
    """Whether two answers are the same in normal form. An article alone has none and is compared as written."""
    normal = normalise(prediction)
    return normal == normalise(answer) if normal else _one_line(prediction).lower() == _one_line(answer).lower()


def exact_accuracy(predictions: Sequence[str], answers: Sequence[str]) -> VqaAccuracy:
    """Share of predictions equal to the one true answer in normal form, 0..1, higher = better.

    Raises:
        ValueError: no questions, or lengths that differ.
    """
    _check_lengths(predictions, answers)
    scores = tuple(float(exact_match(*pair)) for pair in zip(predictions, answers, strict=True))
    return VqaAccuracy(fmean(scores), scores, {})


def _check_lengths(predictions: Sequence[object], *others: Sequence[object]) -> None:
    if not predictions:
        raise ValueError("accuracy of no questions is not defined")
    if any(len(other) != len(predictions) for other in others):
        raise ValueError(f"lengths differ: {len(predictions)} predictions, {[len(other) for other in others]}")
