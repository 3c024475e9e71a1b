"""Intervals and tests of accuracies: of several seeds on the same messages.

`outcomes` are arrays [..., seeds, messages]: 1 where a seed's model was right, 0 where it was wrong, or the difference
of two such arrays. Seeds and messages are crossed and both are samples, as readers and cases are in radiology: all
outcomes of a seed share its luck, all outcomes of a message its difficulty. docs/statistics.md gives reasons and
sources.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri

from harness.statistics.quantiles import multiplier, two_sided_p
from harness.statistics.verdicts import LEVEL, Difference

POWER = 0.8
MOST_SEEDS = 1_000
MOST_MESSAGES = 1_000_000


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
    variance, fraction = _variance(squares, (0.0, 1.0), INTERVAL_PSEUDO_MESSAGES, INTERVAL_LEAST)
    spread = mean * (1 - mean) + INTERVAL_PSEUDO_MESSAGES * (mean**2 + (1 - mean) ** 2) / squares.messages
    count = spread / variance
    squared = multiplier(fraction, squares.seeds - 1, LEVEL) ** 2
    centre = (mean + squared / (2 * count)) / (1 + squared / count)
    half = np.sqrt(squared * (mean * (1 - mean) + squared / (4 * count)) / count) / (1 + squared / count)
    return centre - half, centre + half


def paired_difference(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """Several seeds, paired by seed and message; both [..., seeds, messages]. Generalises to new seeds and messages."""
    squares = mean_squares(correct.astype(float) - reference)
    error, fraction = _error_of_difference(squares)
    half = multiplier(fraction, squares.seeds - 1, LEVEL) * error
    p = two_sided_p(np.abs(squares.mean) / error, fraction, squares.seeds - 1)
    return Difference(squares.mean, np.maximum(squares.mean - half, -1), np.minimum(squares.mean + half, 1), p)


def smallest_shown(squares: MeanSquares, level: float) -> np.ndarray:
    """The least difference [...] with a two-sided p below `level` in `paired_difference`, where these are the mean
    squares of the differences in correctness."""
    error, fraction = _error_of_difference(squares)
    return multiplier(fraction, squares.seeds - 1, level) * error


def _error_of_difference(squares: MeanSquares) -> tuple[np.ndarray, np.ndarray]:
    """The standard error, and the fraction of its square that is estimated from the seeds."""
    variance, fraction = _variance(squares, (-1.0, 1.0), DIFFERENCE_PSEUDO_MESSAGES, DIFFERENCE_LEAST)
    return np.sqrt(variance), fraction


def mcnemar(correct: np.ndarray, reference: np.ndarray) -> Difference:
    """One seed, paired by message; both [messages]. Generalises to new messages, for this pair of trained models only.

    p: McNemar's test, exact (McNemar, 1947). Interval: Wald's with half a message added to each of the four outcomes
    (Agresti and Min, 2005). All values are arrays [].
    """
    correct, reference = np.asarray(correct, bool), np.asarray(reference, bool)
    gained, lost, total = int((correct & ~reference).sum()), int((reference & ~correct).sum()), len(correct)
    p = min(2 * bdtr(min(gained, lost), gained + lost, 0.5), 1.0)
    gain, loss = ((count + DIFFERENCE_PSEUDO_MESSAGES) / (total + 2) for count in (gained, lost))
    half = -ndtri(LEVEL / 2) * np.sqrt((gain + loss - (gain - loss) ** 2) / (total + 2))
    low, high = np.clip([gain - loss - half, gain - loss + half], -1, 1)
    return Difference(*map(np.asarray, ((gained - lost) / total, low, high, p)))


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
# vanish where few messages differ. For intervals the smallest number with which benchmarks/coverage.py finds
# the nominal coverage (Wilson's formula does the rest); for differences Agresti and Min's.
INTERVAL_PSEUDO_MESSAGES = 0.1
DIFFERENCE_PSEUDO_MESSAGES = 0.5
# The least variance, relative to that of independent outcomes: seeds that agree by chance must not show none.
INTERVAL_LEAST = 1 / 3
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


def _shows(squares: MeanSquares, seeds: int, messages: int, comparisons: int) -> bool:
    """Whether so many seeds and messages would show the observed difference with 80% power."""
    by_seed = max(float(squares.seed - squares.error), 0.0) / squares.messages
    by_message = max(float(squares.message - squares.error), 0.0) / squares.seeds
    from_seeds = (by_seed + float(squares.error) / messages) / seeds
    variance = from_seeds + by_message / messages
    if not variance:
        return bool(squares.mean)
    half = float(multiplier(from_seeds / variance, seeds - 1, LEVEL / comparisons))
    return bool(abs(squares.mean) >= (half + ndtri(POWER)) * np.sqrt(variance))


def _first(counts: range, holds: Callable[[int], bool]) -> int | None:
    """The first for which `holds`, which then holds for all later ones."""
    found = bisect_left(counts, True, key=holds)
    return counts[found] if found < len(counts) else None
