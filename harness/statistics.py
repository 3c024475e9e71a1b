"""Intervals and tests; knows nothing of models."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, 1927): what the size of the test set leaves open.

    It does not cover how results vary from seed to seed.
    """
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
