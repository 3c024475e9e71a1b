"""The metrics against scikit-learn's, and what is said about an unknown one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics

from harness.errors import UserError
from harness.metrics import METRICS, metric_named

ORACLES = {
    "accuracy": sklearn_metrics.accuracy_score,
    "macro_f1": lambda *pair: sklearn_metrics.f1_score(*pair, average="macro"),
    "balanced_accuracy": sklearn_metrics.balanced_accuracy_score,
    "mcc": sklearn_metrics.matthews_corrcoef,
}


@st.composite
def _tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """labels [messages] and predictions [seeds, messages] of up to 5 classes, some of which don't occur."""
    messages, classes = draw(st.integers(1, 30)), st.integers(0, draw(st.integers(0, 4)))
    shape = (draw(st.integers(1, 3)), messages)
    return draw(arrays(int, messages, elements=classes)), draw(arrays(int, shape, elements=classes))


@given(_tables())
@settings(max_examples=60)
def test_values_are_scikit_learns_also_where_classes_do_not_occur(table: tuple[np.ndarray, np.ndarray]) -> None:
    labels, predicted = table
    with warnings.catch_warnings(action="ignore"):  # of classes that do not occur
        expected = {name: [oracle(labels, one) for one in predicted] for name, oracle in ORACLES.items()}
    for name, metric in METRICS.items():
        assert metric(labels, predicted) == pytest.approx(expected[name], abs=1e-9), name


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_lower_macro_f1_but_one_that_is_predicted_does() -> None:
    labels = np.array([0, 0, 2, 2])
    assert METRICS["macro_f1"](labels, labels) == 1
    assert METRICS["macro_f1"](labels, np.array([0, 0, 2, 1])) < 0.6
    assert METRICS["balanced_accuracy"](labels, np.array([0, 0, 2, 1])) == 0.75


@pytest.mark.parametrize("wrong", ["f1", "Accuracy", "", ["mcc"], None])
def test_an_unknown_metric_is_named_with_those_that_are_known(wrong: object) -> None:
    with pytest.raises(UserError, match="expected one of accuracy, macro_f1, balanced_accuracy, mcc") as caught:
        metric_named(wrong)
    assert f"METRIC={wrong!r}" in str(caught.value)
