"""Metrics: pure functions of predictions and references; and predictions in the files that official servers read.

Captions, retrieval and submission files are in `metric.caption`, `metric.retrieval` and `metric.submission`.
"""

from madtp.metric.reasoning import ReasoningScores, reasoning_scores
from madtp.metric.vqa import VqaAccuracy, by_group, exact_accuracy, exact_match, normalise, vqa_accuracy, vqa_score

__all__ = [
    "ReasoningScores",
    "VqaAccuracy",
    "by_group",
    "exact_accuracy",
    "exact_match",
    "normalise",
    "reasoning_scores",
    "vqa_accuracy",
    "vqa_score",
]
