"""How small a fall of accuracy the gate sees, from what a reference has measured: docs/gate.md.

Answers are thought of as a latent normal model (the one of benchmarks/coverage.py): a message is answered right where
threshold + luck of the seed + difficulty of the message + rest > 0, and a fall lowers the threshold. The messages' part
of the variance is estimated from how often seeds agree; with one seed it is ONE_SEED_DIFFICULTY, and luck is left out.
Several seeds of the rerun count as new ones, which is the worst case: the same seeds, of code that has hardly changed,
differ less.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from harness import statistics
from harness.gate.checks import test_level, tests_of
from harness.gate.measurement import Measurement
from harness.metrics import MetricName
from harness.statistics import POWER, MeanSquares

# What messages have in the variance where one seed cannot say: as benchmarks/coverage.py has it.
ONE_SEED_DIFFICULTY = 0.6
MOST_SEEDS, MOST_MESSAGES = 100, 1_000_000
# The fall whose price is named: what it needs of messages or seeds.
EXAMPLE = 0.01


def _middles(count: int) -> np.ndarray:
    """Of equally likely parts of a distribution: the points at which it is evaluated."""
    return (np.arange(count) + 0.5) / count


MESSAGES, SEED_VARIANCES = ndtri(_middles(1_000)), _middles(80)


@dataclass(frozen=True)
class Answers:
    """What a row's answers are like.

    difficulty: the messages' part of the latent variance, 0 to 1. seed_variances: of the accuracy from seed to seed,
    equally likely values [variances] in view of what few seeds show; with one seed 0.
    """

    accuracy: float
    difficulty: float
    seed_variances: np.ndarray
    seeds: int
    messages: int

    @classmethod
    def of(cls, correct: np.ndarray) -> Answers:
        """correct: [seeds, messages]."""
        seeds, messages = correct.shape
        # Half an answer to either side: no accuracy is 0 or 1 for certain.
        accuracy = float((correct.sum() + 0.5) / (correct.size + 1))
        if seeds == 1:
            return cls(accuracy, ONE_SEED_DIFFICULTY, np.zeros(1), seeds, messages)
        right = correct.sum(axis=0)
        both_right = float((right * (right - 1)).mean() / (seeds * (seeds - 1)))

        def excess(difficulty: float) -> float:
            return float(np.square(_chances(accuracy, difficulty)).mean()) - both_right

        low, high = 0.0, 0.999
        difficulty = low if excess(low) >= 0 else high if excess(high) <= 0 else brentq(excess, low, high, xtol=1e-4)
        squares = statistics.mean_squares(correct.astype(float))
        likely = squares.seed / _chi_squares(seeds - 1) - squares.error
        return cls(accuracy, difficulty, np.maximum(likely, 0) / messages, seeds, messages)


def _chances(accuracy: float, difficulty: float) -> np.ndarray:
    """How likely each of many messages, from the hardest to the easiest, is answered right."""
    return ndtr((ndtri(accuracy) + np.sqrt(difficulty) * MESSAGES) / np.sqrt(1 - difficulty))


def _chi_squares(degrees: int) -> np.ndarray:
    """Equally likely values of an estimated variance divided by the true one."""
    return stats.chi2.ppf(SEED_VARIANCES, degrees) / degrees


def power(answers: Answers, fall: float, level: float) -> float:
    """The probability that a one-sided test at `level` sees the fall (0 to the accuracy)."""
    lower = max(answers.accuracy - fall, 1e-9)
    before, after = (_chances(accuracy, answers.difficulty) for accuracy in (answers.accuracy, lower))
    if answers.seeds == 1:
        return _power_of_one_seed(answers.messages, (before * (1 - after)).mean(), (after * (1 - before)).mean(), level)
    seeds, messages = answers.seeds, answers.messages
    # The same luck moves a lower accuracy by more, or by less.
    steeper = stats.norm.pdf(ndtri(lower)) / stats.norm.pdf(ndtri(answers.accuracy))
    error = float((before * (1 - before) + after * (1 - after)).mean())
    message = error + seeds * float((after - before).var())
    seed = (error + messages * answers.seed_variances * (1 + steeper**2))[:, None]
    estimated = seed * _chi_squares(seeds - 1)
    shape = estimated.shape
    squares = MeanSquares(
        mean=np.full(shape, -fall),
        seed=estimated,
        message=np.full(shape, message),
        error=np.full(shape, error),
        seeds=seeds,
        messages=messages,
    )
    deviation = np.sqrt((seed + message - error) / (seeds * messages))
    return float(ndtr((fall - statistics.smallest_shown(squares, 2 * level)) / deviation).mean())


def _power_of_one_seed(messages: int, lost: float, gained: float, level: float) -> float:
    """Of McNemar's exact test. lost, gained: probabilities that a message is answered right before or after only."""
    changed = lost + gained
    least, most = (int(stats.binom.ppf(chance, messages, changed)) for chance in (1e-6, 1 - 1e-6))
    count = np.arange(least, most + 1)
    allowed = stats.binom.isf(level, count, 0.5)
    return float((stats.binom.pmf(count, messages, changed) * stats.binom.sf(allowed, count, lost / changed)).sum())


def smallest_visible_fall(answers: Answers, level: float) -> float | None:
    """The fall of accuracy that is seen with 80% power; None where not even the greatest is."""

    def excess(fall: float) -> float:
        return power(answers, fall, level) - POWER

    greatest = answers.accuracy
    return brentq(excess, 1e-6, greatest, xtol=1e-5) if excess(greatest) > 0 else None


def messages_to_see(answers: Answers, fall: float, level: float) -> int | None:
    """The number of test messages on which as many seeds see the fall with 80% power; None: no number."""
    counts = range(answers.messages, MOST_MESSAGES + 1)
    return _first(counts, lambda count: power(replace(answers, messages=count), fall, level))


def seeds_to_see(answers: Answers, fall: float, level: float) -> int | None:
    """The number of seeds that see the fall on as many test messages; None: no number, or one seed, which says nothing
    about others."""
    counts = range(answers.seeds, MOST_SEEDS + 1) if answers.seeds > 1 else range(0)
    return _first(counts, lambda count: power(replace(answers, seeds=count), fall, level))


def _first(counts: range, power_with: Callable[[int], float]) -> int | None:
    found = bisect_left(counts, True, key=lambda count: power_with(count) >= POWER)
    return counts[found] if found < len(counts) else None


@dataclass(frozen=True)
class VisibleFall:
    """fall: None where not even the greatest is seen. messages_for_example, seeds_for_example: what a fall of EXAMPLE
    needs; None: no number suffices."""

    row: str
    seeds: int
    messages: int
    fall: float | None
    messages_for_example: int | None
    seeds_for_example: int | None


def visible_falls(reference: Measurement, metric: MetricName) -> list[VisibleFall]:
    """Of each row, at the level that the correction over all rows and metrics leaves it at least."""
    rows = reference.rows()
    level = test_level(reference) / (len(rows) * len(tests_of(metric, rows.values())))
    found = []
    for row, runs in rows.items():
        answers = Answers.of(np.array([run.answers() for run in runs]))
        found.append(
            VisibleFall(
                row=row,
                seeds=answers.seeds,
                messages=answers.messages,
                fall=smallest_visible_fall(answers, level),
                messages_for_example=messages_to_see(answers, EXAMPLE, level),
                seeds_for_example=seeds_to_see(answers, EXAMPLE, level),
            )
        )
    return found
