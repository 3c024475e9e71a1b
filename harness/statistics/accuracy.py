"""Intervals and tests for predictions of several seeds on the same messages; knows nothing of models.

`outcomes` are arrays [..., seeds, messages]: 1 where a seed's model was right, 0 where it was wrong, or the difference
of two such arrays. Seeds and messages are crossed and both are samples, as readers and cases are in radiology: all
outcomes of a seed share its luck, all outcomes of a message its difficulty. docs/statistics.md gives reasons and
sources.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from scipy.optimize.elementwise import find_root
from scipy.special import expit, logit

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1_000
MOST_MESSAGES = 1_000_000
Verdict = Literal["better", "worse", "no evidence"]


def wilson_interval(correct: int, total: int, confidence: float = 1 - LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson, 1927): the uncertainty due to the size of the test set.

    It does not cover the variation from seed to seed.
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class MeanSquares:
    """Two-way analysis of variance with one outcome for each seed and message; the mean and mean squares are [...]."""

    mean: np.ndarray
    seed: np.ndarray
    message: np.ndarray
    error: np.ndarray
    seeds: int
    messages: int


def mean_squares(outcomes: np.ndarray) -> MeanSquares:
    """outcomes: [..., seeds, messages], at least two of each."""
    seeds, messages = outcomes.shape[-2:]
    mean = outcomes.mean(axis=(-2, -1), keepdims=True)
    by_seed, by_message = outcomes.mean(axis=-1, keepdims=True), outcomes.mean(axis=-2, keepdims=True)
    rest = outcomes - by_seed - by_message + mean
    return MeanSquares(
        mean=mean[..., 0, 0],
        seed=messages * np.square(by_seed - mean).sum(axis=(-2, -1)) / (seeds - 1),
        message=seeds * np.square(by_message - mean).sum(axis=(-2, -1)) / (messages - 1),
        error=np.square(rest).sum(axis=(-2, -1)) / ((seeds - 1) * (messages - 1)),
        seeds=seeds,
        messages=messages,
    )


def accuracy_interval(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval [...] of the mean accuracy over new seeds and new messages; correct: [..., seeds, messages].

    Wilson's formula for the number of independent predictions that would give the observed variance of the mean.
    """
    squares, mean = mean_squares(correct), correct.mean(axis=(-2, -1))
    variance, fraction = _variance(squares, (0.0, 1.0), ACCURACY_PSEUDO_MESSAGES, ACCURACY_LEAST)
    spread = mean * (1 - mean) + ACCURACY_PSEUDO_MESSAGES * (mean**2 + (1 - mean) ** 2) / squares.messages
    count = spread / variance
    squared = _multiplier(fraction, squares.seeds - 1, LEVEL) ** 2
    centre = (mean + squared / (2 * count)) / (1 + squared / count)
    half = np.sqrt(squared * (mean * (1 - mean) + squared / (4 * count)) / count) / (1 + squared / count)
    return centre - half, centre + half


@dataclass(frozen=True)
class Difference:
    """Mean accuracy minus the reference's, its 95% interval and the two-sided p-value, each [...]."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired_difference(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """Several seeds, paired by seed and message; both [..., seeds, messages]. Generalises to new seeds and messages."""
    squares = mean_squares(correct.astype(float) - reference)
    variance, fraction = _variance(squares, (-1.0, 1.0), DIFFERENCE_PSEUDO_MESSAGES, DIFFERENCE_LEAST)
    error = np.sqrt(variance)
    half = _multiplier(fraction, squares.seeds - 1, LEVEL) * error
    p = _two_sided_p(np.abs(squares.mean) / error, fraction, squares.seeds - 1)
    return Difference(squares.mean, np.maximum(squares.mean - half, -1), np.minimum(squares.mean + half, 1), p)


def mcnemar(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """One seed, paired by message; both [messages]. Generalises to new messages, for this pair of trained models only.

    p: McNemar's test, exact (McNemar, 1947). Interval: Wald's with half a message added to each of the four outcomes
    (Agresti and Min, 2005). All values are arrays [].
    """
    correct, reference = np.asarray(correct, bool), np.asarray(reference, bool)
    gained, lost, total = int((correct & ~reference).sum()), int((reference & ~correct).sum()), len(correct)
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    gain, loss = ((count + DIFFERENCE_PSEUDO_MESSAGES) / (total + 2) for count in (gained, lost))
    half = stats.norm.isf(LEVEL / 2) * np.sqrt((gain + loss - (gain - loss) ** 2) / (total + 2))
    low, high = np.clip([gain - loss - half, gain - loss + half], -1, 1)
    return Difference(*map(np.asarray, ((gained - lost) / total, low, high, p)))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values [..., tests] corrected for the number of tests (Holm, 1979)."""
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(stepped)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1), axis=-1)
    return corrected


def verdict(estimate: float, corrected_p: float) -> Verdict:
    if corrected_p >= LEVEL:
        return "no evidence"
    return "better" if estimate > 0 else "worse"


def seeds_needed(correct: np.ndarray, reference: np.ndarray, comparisons: int) -> int | None:
    """The number of seeds that would show the observed difference on the same number of messages.

    correct, reference: [seeds, messages]. With 80% power, at a level of 5% divided by `comparisons`, if the variance
    components are as observed. None where no number up to MOST_SEEDS would: then the messages are too few.
    """
    squares = mean_squares(correct.astype(float) - reference)
    counts = range(squares.seeds, MOST_SEEDS + 1)
    return _first(counts, lambda seeds: _shows(squares, seeds, squares.messages, comparisons))


def messages_needed(correct: np.ndarray, reference: np.ndarray, comparisons: int) -> int | None:
    """As `seeds_needed`: the number of messages that would show the difference with the same number of seeds."""
    squares = mean_squares(correct.astype(float) - reference)
    counts = range(squares.messages, MOST_MESSAGES + 1)
    return _first(counts, lambda messages: _shows(squares, squares.seeds, messages, comparisons))


# Pseudo-messages added with one extreme value in all seeds, and as many with the other: the estimated variance must not
# vanish where few messages differ. For accuracies the smallest number with which benchmarks/coverage.py finds
# the nominal coverage (Wilson's formula does the rest); for differences Agresti and Min's.
ACCURACY_PSEUDO_MESSAGES = 0.1
DIFFERENCE_PSEUDO_MESSAGES = 0.5
# The least variance, relative to that of independent outcomes: seeds that agree by chance must not show none.
ACCURACY_LEAST = 1 / 3
DIFFERENCE_LEAST = 1.0


def _variance(
    squares: MeanSquares, extremes: tuple[float, float], pseudo: float, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """The variance of the mean, and the fraction of it that is estimated from the seeds.

    (seed + message - error) / (seeds * messages) in mean squares, with no component of variance below zero.
    """
    spread = sum((np.square(extreme - squares.mean) for extreme in extremes), np.zeros_like(squares.mean))
    added = pseudo * spread * squares.seeds / (squares.messages - 1)
    between_messages = np.maximum(squares.message + added - squares.error, 0)
    total = np.maximum(squares.seed + between_messages, least * squares.error)
    return total / (squares.seeds * squares.messages), squares.seed / total


def _multiplier(fraction: np.ndarray | float, degrees: int, level: np.ndarray | float) -> np.ndarray:
    """Standard errors from the mean to the end of an interval, where `fraction` of the variance is estimated with
    `degrees` of freedom and the rest is known.

    Between a normal and Student's t, so that the interval has its nominal coverage whatever the true fraction is: the
    problem of Welch (1947) with one variance known. Its solution has no closed form; this one is fitted to it.
    """
    normal, student = stats.norm.isf(level / 2), stats.t.isf(level / 2, degrees)
    quotient = np.square(normal / student)
    weight = expit((logit(fraction) - np.log(quotient * (1 + 4 / degrees))) / quotient)
    return np.sqrt(normal**2 + (student**2 - normal**2) * fraction * weight)


def _two_sided_p(ratio: np.ndarray, fraction: np.ndarray | float, degrees: int) -> np.ndarray:
    """The level at which the interval ends at `ratio` standard errors; at least 1e-100."""
    lowest, highest = np.log([1e-100, 1 - 1e-6])
    nearest, farthest = (_multiplier(fraction, degrees, np.exp(bound)) for bound in (highest, lowest))
    within = np.clip(ratio, nearest, farthest)

    def excess(logarithm: np.ndarray, ratio: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        return _multiplier(fraction, degrees, np.exp(logarithm)) - ratio

    bracket = (np.full_like(within, lowest), np.full_like(within, highest))
    return np.exp(find_root(excess, bracket, args=(within, fraction)).x)


def _shows(squares: MeanSquares, seeds: int, messages: int, comparisons: int) -> bool:
    """Whether so many seeds and messages would show the observed difference with 80% power."""
    by_seed = max(float(squares.seed - squares.error), 0.0) / squares.messages
    by_message = max(float(squares.message - squares.error), 0.0) / squares.seeds
    from_seeds = (by_seed + float(squares.error) / messages) / seeds
    variance = from_seeds + by_message / messages
    if not variance:
        return bool(squares.mean)
    multiplier = float(_multiplier(from_seeds / variance, seeds - 1, LEVEL / comparisons))
    return bool(abs(squares.mean) >= (multiplier + stats.norm.ppf(POWER)) * np.sqrt(variance))


def _first(counts: range, holds: Callable[[int], bool]) -> int | None:
    """The first for which `holds`, which then holds for all later ones."""
    found = bisect_left(counts, True, key=holds)
    return counts[found] if found < len(counts) else None


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
