"""Intervals and tests; knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, 1927): what the size of the test set leaves open.

    It does not cover how results vary from seed to seed.
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
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


def next_run_interval(correct: Sequence[int], total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The prediction interval for the accuracy of one more run on the same `total` texts; correct: of each run so far.

    Several runs: mean and standard deviation `s` of their counts, `mean +- t s sqrt(1 + 1/runs)` with Student's t of
    `runs - 1` degrees (Hahn and Meeker, Statistical Intervals, 1991, section 4.7). `s` is at least 1/sqrt(runs), the
    least that whole counts show unless they are all equal: equal counts don't prove that no run ever differs.
    One run: all counts that the two-sample score test would not tell from it, `|next - now| <= z sqrt(2 total p
    (1 - p))` with `p` pooled from both, solved for `next`. Its variance is that of independent answers of one
    probability. Texts that differ in difficulty make it too wide; what a run's luck does to many texts at once is not
    in it.
    """
    runs, counts = len(correct), np.asarray(correct, float)
    if runs == 1:
        squared = stats.norm.isf((1 - confidence) / 2) ** 2
        # With sum = now + next: (sum - 2 now)^2 = squared (sum - sum^2 / (2 total)).
        now, quadratic = counts[0], 1 + squared / (2 * total)
        linear = 4 * now + squared
        half = np.sqrt(max(linear**2 - 16 * quadratic * now**2, 0.0))
        low, high = ((linear + sign * half) / (2 * quadratic) - now for sign in (-1, 1))
    else:
        spread = max(counts.std(ddof=1), 1 / np.sqrt(runs))
        half = stats.t.isf((1 - confidence) / 2, runs - 1) * spread * np.sqrt(1 + 1 / runs)
        low, high = counts.mean() - half, counts.mean() + half
    return float(max(low / total, 0.0)), float(min(high / total, 1.0))
