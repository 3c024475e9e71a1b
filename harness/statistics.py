"""Intervals and tests; knows nothing of models."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, 1927): what the size of the test set leaves open.

    It does not cover how results vary from seed to seed.
    """
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """How far the top probability is from the accuracy, on average (Guo et al., 2017, arXiv:1706.04599, section 2).

    probabilities: [examples, classes]; labels: [examples]. The top probabilities fall into equal-width bins, closed on
    the right; the gap of a bin between mean probability and accuracy weighs as many examples as it holds.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    numbers = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(numbers, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))
