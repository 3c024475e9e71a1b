"""What can be said of one run, and of the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

from harness.statistics.verdicts import LEVEL


def wilson_interval(correct: int, total: int, confidence: float = 1 - LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, 1927): the uncertainty due to the size of the test set.

    It does not cover the variation from seed to seed.
    """
    from scipy.stats import binomtest  # the slowest part of SciPy to import

    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over `bins` equally wide bins of confidence (Guo et al., 2017).

    probabilities: [examples, classes]; labels: [examples], indices of classes.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_index = np.ceil(confidence * bins).astype(int)
    return float(np.abs(np.bincount(bin_index, weights=correct - confidence)).sum() / len(labels))


def next_run_interval(correct: Sequence[int], total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The prediction interval for the accuracy of one more run on the same `total` texts; correct: count of each run.

    Several runs: mean and standard deviation `s` of their counts, `mean +- t s sqrt(1 + 1/runs)` with Student's t of
    `runs - 1` degrees (Hahn and Meeker, Statistical Intervals, 1991, section 4.7). `s` is at least 1/sqrt(runs), the
    smallest value for counts that are not all equal: equal counts don't prove that no run ever differs.
    One run: all counts that the two-sample score test does not distinguish from it, `|next - now| <= z sqrt(2 total p
    (1 - p))` with `p` pooled from both, solved for `next`. Its variance is that of independent predictions with one
    probability of being right: too large where texts differ in difficulty, too small where a run's luck affects many
    texts at once.
    """
    runs, counts = len(correct), np.asarray(correct, float)
    if runs == 1:
        squared = ndtri((1 - confidence) / 2) ** 2
        # With sum = now + next: (sum - 2 now)^2 = squared (sum - sum^2 / (2 total)).
        now, quadratic = counts[0], 1 + squared / (2 * total)
        linear = 4 * now + squared
        half = np.sqrt(max(linear**2 - 16 * quadratic * now**2, 0.0))
        low, high = ((linear + sign * half) / (2 * quadratic) - now for sign in (-1, 1))
    else:
        spread = max(counts.std(ddof=1), 1 / np.sqrt(runs))
        half = -stdtrit(runs - 1, (1 - confidence) / 2) * spread * np.sqrt(1 + 1 / runs)
        low, high = counts.mean() - half, counts.mean() + half
    return float(max(low / total, 0.0)), float(min(high / total, 1.0))
