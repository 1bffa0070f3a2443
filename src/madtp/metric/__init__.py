"""Metrics: pure functions of predictions and references."""

from madtp.metric.vqa import VqaAccuracy, exact_accuracy, exact_match, normalise, vqa_accuracy, vqa_score

__all__ = ["VqaAccuracy", "exact_accuracy", "exact_match", "normalise", "vqa_accuracy", "vqa_score"]
