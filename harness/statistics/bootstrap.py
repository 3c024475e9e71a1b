"""Intervals and tests of metrics that are no means over messages, such as macro F1: a bootstrap over messages.

Seeds and messages are crossed, as in accuracy.py. The variance of the mean over seeds is Obuchowski and Rockette's
(1995): the variance between the seeds' values, and the covariance of two seeds on the same messages, for which messages
are drawn (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Seeds are not drawn: two to five of them would
vary too little. docs/statistics.md gives reasons and sources.
"""

from __future__ import annotations

import numpy as np

from harness.metrics import ClassCounts, Metric
from harness.statistics.accuracy import (
    DIFFERENCE_LEAST,
    DIFFERENCE_PSEUDO_MESSAGES,
    INTERVAL_LEAST,
    INTERVAL_PSEUDO_MESSAGES,
)
from harness.statistics.quantiles import multiplier, two_sided_p
from harness.statistics.verdicts import LEVEL, Difference

REPLICATES = 2_000
AT_ONCE = 250


def metric_interval(metric: Metric, labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the mean over seeds: over new seeds and new messages; with one seed over new messages only.

    labels: [messages] int, predicted: [seeds, messages] int, both indices of classes.
    Wilson's formula for the number of independent predictions that would give the variance of the mean.
    """
    values = metric(labels, predicted)
    seeds, mean = len(values), values.mean()
    right = np.tile([True, False], (seeds, 1))
    drawn = _drawn(metric, labels, predicted, right, INTERVAL_PSEUDO_MESSAGES)
    variance, fraction = _variance(values, drawn, INTERVAL_LEAST)
    scale = 1 - metric.lowest
    share, typical = ((value - metric.lowest) / scale for value in (mean, drawn.mean()))
    # At the ends of the scale only the pseudo-messages vary: `typical` lies within it.
    count = typical * (1 - typical) / (variance / scale**2)
    squared = multiplier(fraction, max(seeds - 1, 1), LEVEL) ** 2
    centre = (share + squared / (2 * count)) / (1 + squared / count)
    half = np.sqrt(squared * (share * (1 - share) + squared / (4 * count)) / count) / (1 + squared / count)
    low, high = np.clip([centre - half, centre + half], 0, 1)
    return float(metric.lowest + scale * low), float(metric.lowest + scale * high)


def metric_difference(metric: Metric, labels: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> Difference:
    """The mean over seeds minus the reference's, paired by seed and message; all values are arrays [].

    Generalises to new seeds and messages; with one seed to new messages, for this pair of trained models only.
    labels: [messages] int, predicted and reference: [seeds, messages] int, all indices of classes.
    """
    values = metric(labels, predicted) - metric(labels, reference)
    seeds, mean = len(values), values.mean()
    right = np.repeat([[True, False], [False, True]], seeds, axis=0)
    both = _drawn(metric, labels, np.concatenate([predicted, reference]), right, DIFFERENCE_PSEUDO_MESSAGES)
    variance, fraction = _variance(values, both[:, :seeds] - both[:, seeds:], DIFFERENCE_LEAST)
    error, degrees, largest = np.sqrt(variance), max(seeds - 1, 1), 1 - metric.lowest
    half = multiplier(fraction, degrees, LEVEL) * error
    low, high = np.clip([mean - half, mean + half], -largest, largest)
    return Difference(*map(np.asarray, (mean, low, high, two_sided_p(np.abs(mean) / error, fraction, degrees))))


def _variance(values: np.ndarray, drawn: np.ndarray, least: float) -> tuple[float, float]:
    """The variance of the mean of `values` [seeds], and the fraction of it that is estimated from the seeds.

    drawn: [replicates, seeds], the values on messages that were drawn.
    """
    seeds = len(values)
    covariances = np.cov(drawn, rowvar=False).reshape(seeds, seeds)
    if seeds == 1:
        return float(covariances[0, 0]), 0.0
    of_one_seed = np.trace(covariances) / seeds
    of_two_seeds = (covariances.sum() - np.trace(covariances)) / (seeds * (seeds - 1))
    between_seeds = values.var(ddof=1)
    total = max(between_seeds + seeds * max(of_two_seeds, 0.0), least * (of_one_seed - of_two_seeds))
    return float(total / seeds), float(between_seeds / total)


def _drawn(
    metric: Metric, labels: np.ndarray, predicted: np.ndarray, right: np.ndarray, pseudo_messages: float
) -> np.ndarray:
    """The metric [replicates, rows] of predictions [rows, messages] on messages drawn with replacement, the same for
    all rows and, for the same predictions, in each call.

    Each message is drawn a Poisson-distributed number of times. right: bool [rows, 2], whether the rows predict the
    first and the second of the pseudo-messages of each class right.
    """
    of_class, as_class = _pseudo_messages(labels, right)
    labels, predicted = np.concatenate([labels, of_class]), np.concatenate([predicted, as_class], axis=1)
    weights = np.ones(len(labels))
    weights[len(labels) - len(of_class) :] = pseudo_messages
    # Messages with the same label and the same predictions are one kind, of which there are few.
    kinds, kind_of = np.unique(np.vstack([labels, predicted]), axis=1, return_inverse=True)
    expected = np.bincount(kind_of.ravel(), weights)
    is_class = kinds[..., None] == np.arange(kinds.max() + 1)  # [1 + rows, kinds, classes]
    counted = np.concatenate([is_class[:1], is_class[1:], is_class[:1] & is_class[1:]])
    flat = counted.transpose(1, 0, 2).reshape(len(expected), -1).astype(float)
    random, found = np.random.default_rng(0), []
    for _ in range(0, REPLICATES, AT_ONCE):
        times = random.poisson(expected, (AT_ONCE, len(expected)))
        counts = (times @ flat).reshape(AT_ONCE, len(counted), -1)
        of_label, of_prediction, of_both = np.split(counts, [1, len(kinds)], axis=1)
        found.append(metric.of_counts(ClassCounts(np.broadcast_to(of_label, of_both.shape), of_prediction, of_both)))
    return np.concatenate(found)


def _pseudo_messages(labels: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two of each class: their labels [2 classes], and predictions [rows, 2 classes], the wrong ones the most common
    other class. right: as in `_drawn`."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) == 1:  # a second one, so that no metric is constant
        classes, counts = np.append(classes, classes + 1), np.append(counts, 0)
    first, second = classes[np.argsort(-counts, kind="stable")[:2]]
    wrong = np.where(classes == first, second, first)
    return np.tile(classes, 2), np.concatenate(
        [np.where(column[:, None], classes, wrong) for column in right.T], axis=1
    )
