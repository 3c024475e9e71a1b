"""Intervals and tests for right and wrong answers of several seeds on the same messages; knows nothing of models.

`cells` are arrays [..., seeds, messages]: 1 where a seed's model was right, 0 where it was wrong, or the difference of
two such arrays. Seeds and messages are crossed and both are samples, as readers and cases are in radiology: all cells
of a seed share its luck, all cells of a message its difficulty. docs/statistics.md gives reasons and sources.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
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
    """Wilson's score interval for a proportion (Wilson, 1927): what the size of the test set leaves open.

    It does not cover how results vary from seed to seed.
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class MeanSquares:
    """Two-way analysis of variance with one observation a cell: arrays [...] of the mean and the mean squares."""

    mean: np.ndarray
    seed: np.ndarray
    message: np.ndarray
    error: np.ndarray
    seeds: int
    messages: int


def mean_squares(cells: np.ndarray) -> MeanSquares:
    """cells: [..., seeds, messages], at least two of each."""
    seeds, messages = cells.shape[-2:]
    mean = cells.mean(axis=(-2, -1), keepdims=True)
    by_seed, by_message = cells.mean(axis=-1, keepdims=True), cells.mean(axis=-2, keepdims=True)
    rest = cells - by_seed - by_message + mean
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

    Wilson's formula for as many independent answers as would give the observed variance of the mean.
    """
    squares, mean = mean_squares(correct), correct.mean(axis=(-2, -1))
    variance, share = _variance(squares, (0.0, 1.0), ACCURACY_PSEUDO_MESSAGES, ACCURACY_LEAST)
    spread = mean * (1 - mean) + ACCURACY_PSEUDO_MESSAGES * (mean**2 + (1 - mean) ** 2) / squares.messages
    answers = spread / variance
    squared = _multiplier(share, squares.seeds - 1, LEVEL) ** 2
    centre = (mean + squared / (2 * answers)) / (1 + squared / answers)
    half = np.sqrt(squared * (mean * (1 - mean) + squared / (4 * answers)) / answers) / (1 + squared / answers)
    return centre - half, centre + half


@dataclass(frozen=True)
class Difference:
    """Mean accuracy minus the reference's, its 95% interval and the two-sided p-value, each [...]."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired_difference(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """Several seeds, paired cell by cell; both [..., seeds, messages]. About new seeds and new messages."""
    squares = mean_squares(correct.astype(float) - reference)
    variance, share = _variance(squares, (-1.0, 1.0), DIFFERENCE_PSEUDO_MESSAGES, DIFFERENCE_LEAST)
    error = np.sqrt(variance)
    half = _multiplier(share, squares.seeds - 1, LEVEL) * error
    p = _two_sided_p(np.abs(squares.mean) / error, share, squares.seeds - 1)
    return Difference(squares.mean, np.maximum(squares.mean - half, -1), np.minimum(squares.mean + half, 1), p)


def mcnemar(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """One seed, paired message by message; both [messages]. About this pair of trained models, on new messages.

    p: McNemar's test, exact (McNemar, 1947). Interval: Wald's with half a message more of each of the four outcomes
    (Agresti and Min, 2005).
    """
    correct, reference = np.asarray(correct, bool), np.asarray(reference, bool)
    gained, lost, total = int((correct & ~reference).sum()), int((reference & ~correct).sum()), len(correct)
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    gain, loss = ((count + DIFFERENCE_PSEUDO_MESSAGES) / (total + 2) for count in (gained, lost))
    half = stats.norm.isf(LEVEL / 2) * np.sqrt((gain + loss - (gain - loss) ** 2) / (total + 2))
    bounds = np.clip([gain - loss - half, gain - loss + half], -1, 1)
    return Difference(np.float64((gained - lost) / total), bounds[0], bounds[1], np.float64(p))


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
    """How many seeds, on as many messages as now, would show the observed difference of [seeds, messages] cells.

    With 80% power, at 5% shared by `comparisons` tests, if the variance components are as observed. None where no
    number up to MOST_SEEDS would do: the messages are too few then.
    """
    squares = mean_squares(correct.astype(float) - reference)
    counts = range(squares.seeds, MOST_SEEDS + 1)
    return _first(counts, lambda seeds: _shows(squares, seeds, squares.messages, comparisons))


def messages_needed(correct: np.ndarray, reference: np.ndarray, comparisons: int) -> int | None:
    """The same for messages, with as many seeds as now."""
    squares = mean_squares(correct.astype(float) - reference)
    counts = range(squares.messages, MOST_MESSAGES + 1)
    return _first(counts, lambda messages: _shows(squares, squares.seeds, messages, comparisons))


# As if so many messages more had one extreme value in all seeds, and as many the other: keeps the estimated variance
# from vanishing where few messages differ. For accuracies the smallest that the simulation in benchmarks/coverage.py
# asks for (Wilson's formula does the rest); for differences Agresti and Min's.
ACCURACY_PSEUDO_MESSAGES = 0.1
DIFFERENCE_PSEUDO_MESSAGES = 0.5
# The least variance, in what it would be if all cells were independent: seeds that agree by chance must not show none.
ACCURACY_LEAST = 1 / 3
DIFFERENCE_LEAST = 1.0


def _variance(
    squares: MeanSquares, extremes: tuple[float, float], pseudo: float, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """The variance of the mean, and the share of it that is estimated from the seeds.

    (seed + message - error) / (seeds * messages) in mean squares, where no component of variance is negative.
    """
    added = pseudo * sum((extreme - squares.mean) ** 2 for extreme in extremes) * squares.seeds / (squares.messages - 1)
    between_messages = np.maximum(squares.message + added - squares.error, 0)
    total = np.maximum(squares.seed + between_messages, least * squares.error)
    return total / (squares.seeds * squares.messages), squares.seed / total


def _multiplier(share: np.ndarray, degrees: int, level: np.ndarray | float) -> np.ndarray:
    """How many standard errors reach to the end of an interval: `share` of the variance has `degrees`, the rest many.

    Between a normal and Student's t, so that the interval errs as often as it says whatever the true shares are: the
    problem of Welch (1947) with one variance known. Its solution has no closed form; this one is fitted to it.
    """
    normal, student = stats.norm.isf(level / 2), stats.t.isf(level / 2, degrees)
    quotient = np.square(normal / student)
    weight = expit((logit(share) - np.log(quotient * (1 + 4 / degrees))) / quotient)
    return np.sqrt(normal**2 + (student**2 - normal**2) * share * weight)


def _two_sided_p(ratio: np.ndarray, share: np.ndarray, degrees: int) -> np.ndarray:
    """The level at which `ratio` standard errors are the end of the interval; 1e-100 where it is less."""
    bounds = np.log([1e-100, 1 - 1e-6])
    ends = (_multiplier(share, degrees, np.exp(bound)) for bound in bounds[::-1])
    within = np.clip(ratio, *ends)
    bracket = tuple(np.full_like(within, bound) for bound in bounds)
    root = find_root(
        lambda logarithm, ratio, share: _multiplier(share, degrees, np.exp(logarithm)) - ratio,
        bracket,
        args=(within, share),
    )
    return np.exp(root.x)


def _shows(squares: MeanSquares, seeds: int, messages: int, comparisons: int) -> bool:
    """Whether so many seeds and messages would probably show the difference that was observed."""
    by_seed = max(float(squares.seed - squares.error), 0.0) / squares.messages
    by_message = max(float(squares.message - squares.error), 0.0) / squares.seeds
    from_seeds = (by_seed + float(squares.error) / messages) / seeds
    variance = from_seeds + by_message / messages
    if not variance:
        return bool(squares.mean)
    multiplier = float(_multiplier(np.float64(from_seeds / variance), seeds - 1, LEVEL / comparisons))
    return bool(abs(squares.mean) >= (multiplier + stats.norm.ppf(POWER)) * np.sqrt(variance))


def _first(counts: range, holds) -> int | None:
    found = bisect_left(counts, True, key=holds)
    return counts[found] if found < len(counts) else None


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over `bins` equally wide bins of confidence (Guo et al., 2017).

    probabilities: [examples, classes]; labels: [examples], numbers of classes.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.ceil(confidence * bins).astype(int)
    return float(np.abs(np.bincount(number, weights=correct - confidence)).sum() / len(labels))


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
