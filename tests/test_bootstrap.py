"""Bootstrapped intervals and tests: against the formulas for accuracy, scipy's bootstrap, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import f1_score

from harness.metrics import ACCURACY, METRICS, Metric
from harness.statistics import (
    Difference,
    accuracy_interval,
    metric_difference,
    metric_interval,
    paired_difference,
    wilson_interval,
)

OTHERS = [metric for metric in METRICS.values() if metric is not ACCURACY]
ALL = pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))


def _table(seeds: int, messages: int, rate: float = 0.1, right: float = 0.9, seed: int = 0) -> tuple[np.ndarray, ...]:
    """labels [messages], two times predictions [seeds, messages]; `rate` of the messages are of class 1."""
    random = np.random.default_rng(seed)
    labels = (random.random(messages) < rate).astype(int)
    hard = random.random(messages) / 2
    both = hard + random.random((2, seeds, messages)) / 2 < np.quantile(hard + random.random(messages) / 2, right)
    return labels, *np.where(both, labels, 1 - labels)


def _values(difference: Difference) -> list[float]:
    return [float(value) for value in (difference.estimate, difference.low, difference.high, difference.p)]


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("messages", [100, 2_000])
def test_for_accuracy_it_agrees_with_the_analysis_of_variance(seeds: int, messages: int) -> None:
    labels, ours, theirs = _table(seeds, messages)
    expected = accuracy_interval(ours == labels)
    width = expected[1] - expected[0]
    assert metric_interval(ACCURACY, labels, ours) == pytest.approx(expected, abs=0.06 * float(width))
    exact = paired_difference(ours == labels, theirs == labels)
    estimate, low, high, p = _values(metric_difference(ACCURACY, labels, ours, theirs))
    assert estimate == pytest.approx(float(exact.estimate), abs=1e-9)
    # Each class has pseudo-messages of its own, which makes a small test's interval wider.
    assert 0.9 < (high - low) / float(exact.high - exact.low) < (1.3 if messages == 100 else 1.1)
    assert p == pytest.approx(float(exact.p), abs=0.06)


def test_for_accuracy_of_one_seed_it_agrees_with_wilsons_interval() -> None:
    labels, ours, _ = _table(1, 400)
    expected = wilson_interval(int((ours == labels).sum()), 400)
    assert metric_interval(ACCURACY, labels, ours) == pytest.approx(expected, abs=0.002)


def test_the_error_of_one_seeds_difference_is_that_of_scipys_bootstrap() -> None:
    labels, ours, theirs = _table(1, 800)

    def difference(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
        return f1_score(labels, ours, average="macro") - f1_score(labels, theirs, average="macro")

    data = (labels, ours[0], theirs[0])
    expected = stats.bootstrap(data, difference, paired=True, n_resamples=300, vectorized=False, method="percentile")
    _, low, high, _ = _values(metric_difference(METRICS["macro_f1"], labels, ours, theirs))
    assert (high - low) / 2 / 1.96 == pytest.approx(expected.standard_error, rel=0.15)


@ALL
def test_the_order_of_messages_changes_nothing_and_that_of_seeds_no_more_than_the_draw(metric: Metric) -> None:
    labels, ours, theirs = _table(3, 300)
    order = np.random.default_rng(1).permutation(300)
    shuffled = labels[order], ours[:, order], theirs[:, order]
    assert metric_interval(metric, *shuffled[:2]) == metric_interval(metric, labels, ours)
    found = _values(metric_difference(metric, labels, ours, theirs))
    assert _values(metric_difference(metric, *shuffled)) == found
    assert _values(metric_difference(metric, labels, ours[::-1], theirs[::-1])) == pytest.approx(found, abs=0.03)


@ALL
@pytest.mark.parametrize("seeds", [1, 4])
def test_swapping_the_reference_turns_the_difference_round(metric: Metric, seeds: int) -> None:
    labels, ours, theirs = _table(seeds, 300)
    estimate, low, high, p = _values(metric_difference(metric, labels, theirs, ours))
    assert _values(metric_difference(metric, labels, ours, theirs)) == pytest.approx(
        [-estimate, -high, -low, p], abs=0.03
    )


SHAPES = st.tuples(st.integers(1, 3), st.integers(2, 20))


TABLES = SHAPES.flatmap(lambda shape: st.tuples(*(arrays(int, shape, elements=st.integers(0, 2)) for _ in range(3))))


@ALL
@given(TABLES)
@settings(max_examples=8)
def test_any_predictions_have_an_interval_that_holds_the_mean_and_identical_ones_are_no_evidence(
    metric: Metric, tables: tuple[np.ndarray, ...]
) -> None:
    labels, ours, theirs = tables[0][0], tables[1], tables[2]
    low, high = metric_interval(metric, labels, ours)
    assert metric.lowest <= low <= metric(labels, ours).mean() + 1e-9
    assert metric(labels, ours).mean() - 1e-9 <= high <= 1
    assert high - low > 0.01
    estimate, low, high, p = _values(metric_difference(metric, labels, ours, theirs))
    assert low <= estimate <= high
    assert 0 <= p <= 1
    same = _values(metric_difference(metric, labels, ours, ours))
    assert same[0] == 0
    assert same[3] == pytest.approx(1, abs=1e-5)
    assert same[1] < 0 < same[2]


@pytest.mark.parametrize("metric", OTHERS, ids=lambda metric: metric.name)
def test_a_rare_class_that_is_missed_is_a_difference_that_accuracy_does_not_see(metric: Metric) -> None:
    labels = np.repeat([0, 1], [1_900, 100])
    ours, theirs = np.tile(labels, (3, 1)), np.tile(labels, (3, 1))
    ours[:, 1_900:1_950] = 0  # half of the rare class
    theirs[:, :50] = 1  # as many of the common one
    for seed in range(3):
        ours[seed, seed], theirs[seed, 100 + seed] = 1, 0
    assert paired_difference(ours == labels, theirs == labels).p > 0.5
    found = metric_difference(metric, labels, ours, theirs)
    assert found.high < 0
    assert found.p < 0.02


def test_a_seed_that_repeats_another_adds_nothing_and_seeds_that_disagree_widen_the_interval() -> None:
    metric = METRICS["macro_f1"]
    labels, (one,), _ = _table(1, 300)
    low, high = metric_interval(metric, labels, one[None])
    assert metric_interval(metric, labels, np.tile(one, (10, 1))) == pytest.approx((low, high), abs=0.003)
    apart = np.stack([labels, one, np.where(np.arange(300) % 3, one, 1 - one)])
    lower, higher = metric_interval(metric, labels, apart)
    assert higher - lower > 2 * (high - low)
