"""Intervals and tests against scipy and statsmodels, and what must hold for any predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats
from scipy.special import expit
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_table
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from harness.statistics import (
    Difference,
    accuracy_interval,
    expected_calibration_error,
    holm,
    mcnemar,
    mean_squares,
    messages_needed,
    paired_difference,
    seeds_needed,
    verdict,
    wilson_interval,
)
from harness.statistics.quantiles import multiplier, two_sided_p

SHAPES = st.tuples(st.integers(2, 5), st.integers(2, 30))
TABLES = SHAPES.flatmap(lambda shape: arrays(bool, shape))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def _values(difference: Difference) -> list[float]:
    return [float(value) for value in (difference.estimate, difference.low, difference.high, difference.p)]


def test_mean_squares_are_those_of_a_two_way_anova() -> None:
    cells = np.random.default_rng(0).integers(-1, 2, (4, 15))
    seed, message = np.indices(cells.shape)
    frame = pd.DataFrame({"y": cells.ravel(), "seed": seed.ravel(), "message": message.ravel()})
    expected = anova_lm(ols("y ~ C(seed) + C(message)", frame).fit())["mean_sq"]
    squares = mean_squares(cells)
    assert [squares.seed, squares.message, squares.error] == pytest.approx(list(expected), abs=1e-9)


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilson_interval(correct: int, total: int) -> None:
    correct = min(correct, total)
    expected = proportion_confint(correct, total, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx(expected, abs=1e-9)


@given(arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
@settings(max_examples=8)  # statsmodels collects garbage in every call
def test_holm(p: np.ndarray) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-9)


@given(SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape[1]), arrays(bool, shape[1]))))
def test_one_seed_is_tested_by_mcnemar(pair: tuple[np.ndarray, np.ndarray]) -> None:
    ours, theirs = pair
    table = [[(ours & theirs).sum(), (ours & ~theirs).sum()], [(~ours & theirs).sum(), (~ours & ~theirs).sum()]]
    difference = mcnemar(ours, theirs)
    assert difference.p == pytest.approx(mcnemar_table(table, exact=True).pvalue, abs=1e-9)
    assert difference.estimate == pytest.approx(ours.mean() - theirs.mean())
    assert difference.low < difference.estimate < difference.high or abs(difference.estimate) == 1


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 60])
def test_p_is_students_where_seeds_are_all_and_normal_where_messages_are(degrees: int) -> None:
    ratios = np.array([0.3, 1.0, 2.5, 8.0, 20.0])
    everything = np.ones_like(ratios)
    assert two_sided_p(ratios, everything, degrees) == pytest.approx(2 * stats.t.sf(ratios, degrees), abs=1e-9)
    assert two_sided_p(ratios, 0 * everything, degrees) == pytest.approx(2 * stats.norm.sf(ratios), abs=1e-9)


@given(st.floats(0, 1), st.integers(1, 30), st.floats(1e-6, 0.9))
@settings(max_examples=40)
def test_the_end_of_an_interval_has_its_level_as_p(share: float, degrees: int, level: float) -> None:
    end = multiplier(np.float64(share), degrees, level)
    assert two_sided_p(end, np.float64(share), degrees) == pytest.approx(level, rel=1e-6)
    assert stats.norm.isf(level / 2) - 1e-9 <= end <= stats.t.isf(level / 2, degrees) + 1e-9


@pytest.mark.parametrize(("level", "least"), [(0.05, 0.7), (0.05 / 7, 0.2), (0.05 / 19, 0.1)])
@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 60])
def test_an_interval_errs_as_often_as_it_says_whatever_the_shares(degrees: int, level: float, least: float) -> None:
    """By quadrature: variance 1 that is known and `true` that is estimated, from nothing to nearly all."""
    true = np.concatenate([[0], np.geomspace(1e-3, 1e4, 50)])[:, None]
    probability = expit(np.linspace(-18, 18, 2_000))
    estimated = true * stats.chi2.ppf(probability, degrees) / degrees
    half = multiplier(estimated / (1 + estimated), degrees, level) * np.sqrt(1 + estimated)
    errors = integrate.trapezoid(2 * stats.norm.sf(half / np.sqrt(1 + true)), probability, axis=1)
    assert least * level < errors.min() < errors.max() < 1.2 * level


@given(PAIRS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_seeds_and_messages_changes_nothing(pair: tuple[np.ndarray, np.ndarray], random) -> None:
    ours, theirs = pair
    seeds, messages = (np.array(random.sample(range(count), count)) for count in ours.shape)
    shuffled = [table[np.ix_(seeds, messages)] for table in pair]
    assert accuracy_interval(shuffled[0]) == pytest.approx(accuracy_interval(ours), abs=1e-9)
    assert _values(paired_difference(*shuffled)) == pytest.approx(_values(paired_difference(ours, theirs)), abs=1e-9)


@given(PAIRS)
@settings(max_examples=40)
def test_swapping_the_reference_turns_the_difference_round(pair: tuple[np.ndarray, np.ndarray]) -> None:
    ours, theirs = pair
    for compare, tables in ((paired_difference, (ours, theirs)), (mcnemar, (ours[0], theirs[0]))):
        estimate, low, high, p = _values(compare(*tables))
        assert _values(compare(*tables[::-1])) == pytest.approx([-estimate, -high, -low, p], abs=1e-9)


@given(TABLES)
@settings(max_examples=40)
def test_an_interval_holds_the_mean_and_calls_right_and_wrong_alike(correct: np.ndarray) -> None:
    low, high = accuracy_interval(correct)
    assert -1e-9 <= low <= correct.mean() + 1e-9
    assert correct.mean() - 1e-9 <= high <= 1 + 1e-9
    assert high - low > 0.01
    assert accuracy_interval(~correct) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(TABLES)
@settings(max_examples=40)
def test_identical_predictions_are_no_evidence(correct: np.ndarray) -> None:
    for difference in (paired_difference(correct, correct), mcnemar(correct[0], correct[0])):
        assert (difference.estimate, difference.p) == (0, pytest.approx(1, abs=1e-5))
        assert difference.low == pytest.approx(-difference.high)
        assert difference.high > 0
        assert verdict(float(difference.estimate), float(difference.p)) == "no evidence"
    assert seeds_needed(correct, correct, 1) is messages_needed(correct, correct, 1) is None


def test_a_seed_that_repeats_another_adds_nothing() -> None:
    """Ten copies of one model are one model: the interval is about as wide as Wilson's for its messages."""
    one = np.random.default_rng(0).random(300) < 0.9
    low, high = accuracy_interval(np.tile(one, (10, 1)))
    assert (low, high) == pytest.approx(wilson_interval(int(one.sum()), 300), abs=5e-4)


def test_seeds_that_disagree_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    alike, apart = (random.random((3, 300)) < np.array(rates)[:, None] for rates in ([0.9] * 3, [0.8, 0.9, 1.0]))
    (low, high), (lower, higher) = accuracy_interval(alike), accuracy_interval(apart)
    assert higher - lower > 2 * (high - low)


def test_verdicts() -> None:
    assert [verdict(0.1, 0.049), verdict(-0.1, 0.049), verdict(0.1, 0.05)] == ["better", "worse", "no evidence"]


def _cells(seeds: int, messages: int, by_seed: float, by_message: float, noise: float, suites: int = 1) -> np.ndarray:
    """Differences of mean 1 with these standard deviations."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(suites, seeds, 1)), random.normal(size=(suites, 1, messages))
    return 1 + by_seed * a + by_message * b + noise * random.normal(size=(suites, seeds, messages))


def test_the_seeds_that_are_needed_have_the_power_that_is_promised() -> None:
    cells = _cells(40, 400, 2.0, 0.5, 4.0)[0]
    cells += 1 - cells.mean()
    nothing = np.zeros_like(cells)
    needed = seeds_needed(cells[:5] + 1 - cells[:5].mean(), nothing[:5], 1)
    assert needed is not None
    true_needed = seeds_needed(cells, nothing, 1)
    assert true_needed == 40, "40 seeds show it already"
    spread = np.sqrt(mean_squares(cells[:5]).seed / 400)
    again = _cells(needed, 400, float(spread), 0.5, 4.0, suites=300)
    found = paired_difference(again, np.zeros_like(again)).p < 0.05
    assert 0.72 < found.mean() < 0.9


def test_what_settles_a_row_depends_on_what_leaves_it_open() -> None:
    """Seeds where the seeds disagree, messages where those are too few."""
    by_seed, by_message = _cells(4, 200, 1.5, 0.1, 1.0)[0], _cells(4, 200, 0.01, 12.0, 1.0)[0]
    by_seed, by_message = by_seed + 1 - by_seed.mean(), by_message + 1 - by_message.mean()
    nothing = np.zeros_like(by_seed)
    assert 4 < seeds_needed(by_seed, nothing, 1) < 60
    assert seeds_needed(by_seed, nothing, 7) > seeds_needed(by_seed, nothing, 1)
    assert messages_needed(by_seed, nothing, 1) is None
    assert seeds_needed(by_message, nothing, 1) is None
    assert 200 < messages_needed(by_message, nothing, 1) < 5000


def test_expected_calibration_error() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet((1, 1, 1), 500)
    labels = random.integers(0, 3, 500)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = pd.cut(confidence, np.linspace(0, 1, 16))
    groups = pd.DataFrame({"confidence": confidence, "correct": correct}).groupby(bins, observed=True)
    expected = sum(len(group) / 500 * abs(group.correct.mean() - group.confidence.mean()) for _, group in groups)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-9)
    assert expected_calibration_error(np.eye(3)[labels], labels) == 0
