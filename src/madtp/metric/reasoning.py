"""Visual reasoning: accuracy and consistency, as the official scripts of NLVR and NLVR2 define them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class ReasoningScores:
    """Figures of a set of statements, each 0..1, higher = better.

    Attributes:
        accuracy: share of statements judged right.
        consistency: share of groups whose statements are all judged right (Suhr et al., ACL 2019, section 6). It can be
            no higher than chance allows a group: one of four statements is guessed right throughout once in 16 times.
    """

    accuracy: float
    consistency: float


def reasoning_scores(
    predictions: Sequence[bool], labels: Sequence[bool], groups: Sequence[str] | None = None
) -> ReasoningScores:
    """Accuracy and consistency of judged statements.

    Args:
        predictions: what the model holds true.
        labels: what is true.
        groups: which unique sentence each statement is: the same sentence about other pictures, or about the same
            ones in another order. "" = a sentence of its own; None = every one. The official scripts read it off the
            identifier: NLVR2 drops the third part (``dev-850-0-1`` -> ``dev-850--1``), NLVR keeps the number of the
            sentence (``1572-0`` -> ``1572``).

    Raises:
        ValueError: no statements, or lengths that differ.
    """
    if not predictions:
        raise ValueError("accuracy of no statements is not defined")
    if any(len(other) != len(predictions) for other in (labels, *([] if groups is None else [groups]))):
        lengths = [len(labels), *([] if groups is None else [len(groups)])]
        raise ValueError(f"lengths differ: {len(predictions)} predictions, {lengths}")
    right = [bool(predicted) == bool(label) for predicted, label in zip(predictions, labels, strict=True)]
    all_right: dict[str | int, bool] = {}
    for number, correct in enumerate(right):
        # A number is never equal to a name, so that a statement without a group stays alone.
        group = (groups[number] if groups else "") or number
        all_right[group] = all_right.get(group, True) and correct
    return ReasoningScores(fmean(right), fmean(all_right.values()))
