"""Accuracy and consistency: by hand, and against the official procedure written out, on real identifiers."""

import random
from collections.abc import Sequence

import pytest

from madtp.metric import reasoning_scores


def test_by_hand() -> None:
    scores = reasoning_scores(
        [True, False, True, True, False], [True, False, False, True, True], ["a", "a", "b", "b", "c"]
    )
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.consistency == pytest.approx(1 / 3)


def test_a_statement_without_a_group_is_one() -> None:
    predictions, labels = [True, True, False], [True, False, True]
    assert reasoning_scores(predictions, labels, ["", "", ""]) == reasoning_scores(predictions, labels)
    assert reasoning_scores(predictions, labels).consistency == reasoning_scores(predictions, labels).accuracy
    # "0" is a name, not the number of a statement
    assert reasoning_scores(predictions, labels, ["", "0", "0"]).consistency == 1 / 2


def official(identifiers: Sequence[str], right: Sequence[bool], part: int) -> tuple[float, float]:
    """The scripts' procedure: go through the examples; a sentence is consistent until one of its is wrong."""
    correct, consistent = 0, {}
    for identifier, is_right in zip(identifiers, right, strict=True):
        parts = identifier.split("-")
        parts[part] = ""
        sentence = "-".join(parts)
        consistent.setdefault(sentence, True)
        correct += is_right
        if not is_right:
            consistent[sentence] = False
    return correct / len(identifiers), sum(consistent.values()) / len(consistent)


@pytest.mark.parametrize(
    ("identifiers", "groups", "part"),
    [
        # NLVR2: split-set-pair-sentence; one sentence of a set is about all pairs of the set
        (
            [f"dev-{a}-{b}-{c}" for a in range(11) for b in range(3) for c in range(2)],
            [f"{a} {c}" for a in range(11) for b in range(3) for c in range(2)],
            2,
        ),
        # NLVR: sentence-picture
        (
            [f"{a}-{b}" for a in range(13) for b in range(5)],
            [f"{a}" for a in range(13) for _ in range(5)],
            1,
        ),
    ],
)
def test_equals_the_official_procedure(identifiers: list[str], groups: list[str], part: int) -> None:
    rng = random.Random(7)
    labels = [rng.random() < 0.5 for _ in identifiers]
    predictions = [label ^ (rng.random() < 0.2) for label in labels]
    accuracy, consistency = official(identifiers, [p == y for p, y in zip(predictions, labels, strict=True)], part)
    scores = reasoning_scores(predictions, labels, groups)
    assert (scores.accuracy, scores.consistency) == pytest.approx((accuracy, consistency))
    assert 0 < consistency < accuracy


def test_no_statements_or_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="no statements"):
        reasoning_scores([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        reasoning_scores([True], [True, False])
    with pytest.raises(ValueError, match="lengths differ"):
        reasoning_scores([True], [True], ["a", "a"])
