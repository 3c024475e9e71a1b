"""Metrics of predicted classes: what a table compares strategies by, and what the best of several runs is chosen by.

All follow from counts by class. They are scikit-learn's, with its conventions for classes that do not occur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from harness.errors import UserError

MetricName = Literal["accuracy", "macro_f1", "balanced_accuracy", "mcc"]


@dataclass(frozen=True)
class ClassCounts:
    """Messages, or their weights, by class, each float64 [..., classes]: with this label, with this prediction, with
    both (right)."""

    labelled: np.ndarray
    predicted: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Metric:
    """title: for people. lowest: the least possible value; the highest is 1. of_counts: the value [...] of counts."""

    name: MetricName
    title: str
    lowest: float
    of_counts: Callable[[ClassCounts], np.ndarray]

    def __call__(self, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """The value [...] float64. labels: [messages] int, predicted: [..., messages] int, both indices of classes."""
        classes = np.arange(max(labels.max(), predicted.max()) + 1)
        of_label, of_prediction = labels[..., None] == classes, predicted[..., None] == classes
        right = (of_label & of_prediction).sum(axis=-2, dtype=float)
        labelled = np.broadcast_to(of_label.sum(axis=-2, dtype=float), right.shape)
        return self.of_counts(ClassCounts(labelled, of_prediction.sum(axis=-2, dtype=float), right))


def metric_named(name: object) -> Metric:
    """Raises UserError for a name that no metric has."""
    if name not in get_args(MetricName):  # a file may say anything, a list too
        raise UserError(f"METRIC={name!r}: expected one of {', '.join(METRICS)}.")
    return METRICS[str(name)]


def _accuracy(counts: ClassCounts) -> np.ndarray:
    return _quotient(counts.right.sum(axis=-1), counts.labelled.sum(axis=-1))


def _macro_f1(counts: ClassCounts) -> np.ndarray:
    """Mean over classes of F1 = 2 right / (labelled + predicted), the harmonic mean of precision and recall (van
    Rijsbergen, Information Retrieval, 1979), over the classes that occur in labels or predictions."""
    either = counts.labelled + counts.predicted
    return _quotient(_quotient(2 * counts.right, either).sum(axis=-1), (either > 0).sum(axis=-1))


def _balanced_accuracy(counts: ClassCounts) -> np.ndarray:
    """Mean recall over the classes that occur in labels (Brodersen et al., ICPR 2010)."""
    recall = _quotient(counts.right, counts.labelled)
    return _quotient(recall.sum(axis=-1), (counts.labelled > 0).sum(axis=-1))


def _mcc(counts: ClassCounts) -> np.ndarray:
    """Matthews' correlation of labels and predictions (Matthews, 1975), for several classes Gorodkin's (2004); 0 where
    all labels or all predictions are one class."""
    total = counts.labelled.sum(axis=-1)

    def covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return total**2 - (one * other).sum(axis=-1)

    product = covariance(counts.labelled, counts.labelled) * covariance(counts.predicted, counts.predicted)
    joint = total * counts.right.sum(axis=-1) - (counts.labelled * counts.predicted).sum(axis=-1)
    return _quotient(joint, np.sqrt(np.maximum(product, 0)))


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=denominator > 0)


ACCURACY = Metric("accuracy", "accuracy", 0.0, _accuracy)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ACCURACY,
        Metric("macro_f1", "macro F1", 0.0, _macro_f1),
        Metric("balanced_accuracy", "balanced accuracy", 0.0, _balanced_accuracy),
        Metric("mcc", "MCC", -1.0, _mcc),
    )
}
assert tuple(METRICS) == get_args(MetricName)
