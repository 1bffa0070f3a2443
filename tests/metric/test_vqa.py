"""The official VQA accuracy: against the official figures, and by hand."""

import json
from typing import Any

import pytest

from goldens import golden_file
from madtp.metric import exact_accuracy, exact_match, normalise, vqa_accuracy, vqa_score
from madtp.metric.vqa import CONTRACTIONS

GOLDEN = golden_file("vqa_accuracy.json")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(GOLDEN.read_text())
    return loaded


def percent(share: float) -> float:
    return round(100 * share, 2)


@pytest.mark.parametrize(
    ("field", "figure"), [("question_type", "per_question_type"), ("answer_type", "per_answer_type")]
)
def test_every_official_figure(golden: dict[str, Any], field: str, figure: str) -> None:
    predicted = {result["question_id"]: result["answer"] for result in golden["results"]}
    questions = golden["annotations"]
    accuracy = vqa_accuracy(
        [predicted[q["question_id"]] for q in questions],
        [[human["answer"] for human in q["answers"]] for q in questions],
        [q[field] for q in questions],
    )
    expected = golden["expected"]
    ids = [str(q["question_id"]) for q in questions]
    assert dict(zip(ids, map(percent, accuracy.per_question), strict=True)) == expected["per_question"]
    assert {group: percent(share) for group, share in accuracy.per_group.items()} == expected[figure]
    assert percent(accuracy.overall) == expected["overall"]


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_score_by_number_of_matches(matches: int, score: float) -> None:
    # 3 of 10: leaving out one of the three leaves 2/3, leaving out another leaves 1: (3 * 2/3 + 7) / 10 = 0.9
    references = ["red"] * matches + ["blue"] * (10 - matches)
    assert vqa_score("red", references) == pytest.approx(score)


def test_normal_form_counts_only_where_the_humans_disagree() -> None:
    assert vqa_score("Two", ["two"] * 10) == 0.0
    assert vqa_score("Two", ["two"] * 9 + ["2"]) == 1.0
    assert vqa_score("two\n", ["\ttwo"] * 10) == 1.0  # white space at the ends never counts


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("ice-cream", "ice cream"),
        ("ice -cream", "ice cream"),
        ("ice- cream-cone", "ice creamcone"),  # one mark beside a space: every such mark is deleted
        ("1,000", "1000"),
        ("red,white", "red white"),
        ("red/white 1,000", "redwhite 1000"),
        ("U.S.A.", "usa"),
        ("10.5", "10.5"),
        ("No. 5", "no 5"),
        ("The TEN dogs", "10 dogs"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("$5", "$5"),
        ("a", ""),
        ("x" + "." * 33, "x."),  # at most 32 periods go
    ],
)
def test_normalise(raw: str, normal: str) -> None:
    assert normalise(raw) == normal


def test_contractions_are_spellings_without_one_apostrophe() -> None:
    assert CONTRACTIONS["twas"] == "'twas"
    assert {short for short, word in CONTRACTIONS.items() if word == "y'all'd've"} == {
        "yall'd've",
        "y'alld've",
        "y'all'dve",
    }
    assert not {"lets", "shes", "im", "ive", "youdve"} & CONTRACTIONS.keys()


def test_exact_accuracy() -> None:
    found = exact_accuracy(["Two", "the cat", "red", "no", "1,000"], ["2", "cat", "blue", "no", "1000"])
    assert (found.overall, found.per_question, found.per_group) == (0.8, (1, 1, 0, 1, 1), {})
    assert exact_match("a", "A")
    assert not exact_match("a", "the")


def test_no_questions_or_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="no questions"):
        exact_accuracy([], [])
    with pytest.raises(ValueError, match="lengths differ"):
        exact_accuracy(["yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="lengths differ"):
        vqa_accuracy(["yes"], [["yes"]], groups=["a", "b"])
    with pytest.raises(ValueError, match="at least one human answer"):
        vqa_score("yes", [])
