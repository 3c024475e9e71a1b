"""Temperature scaling: against another minimiser, and what must hold for any logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.statistics import fitted_temperature

SHAPES = st.tuples(st.integers(2, 30), st.integers(2, 4))
FINITE = st.floats(-50, 50, width=32)


@st.composite
def classified(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    logits = draw(arrays(float, SHAPES, elements=FINITE))
    return logits, draw(arrays(int, len(logits), elements=st.integers(0, logits.shape[1] - 1)))


def _loss(temperature: float, logits: np.ndarray, labels: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.tensor(logits) / temperature, torch.tensor(labels)))


def _by_lbfgs(logits: np.ndarray, labels: np.ndarray) -> float:
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    exact = {"tolerance_grad": 1e-13, "tolerance_change": 1e-16}
    optimizer = torch.optim.LBFGS([inverse], max_iter=500, line_search_fn="strong_wolfe", **exact)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(torch.tensor(logits) * inverse, torch.tensor(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    return 1 / inverse.item()


def _drawn(seed: int, classes: int = 3, count: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose probabilities are right: labels are drawn from them."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, classes))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


@given(st.integers(0, 1_000), st.integers(2, 5))
def test_another_minimiser_finds_the_same(seed: int, classes: int) -> None:
    logits, labels = _drawn(seed, classes, count=60)
    found = fitted_temperature(logits, labels)
    assume(not isinstance(found, str))
    assert found == pytest.approx(_by_lbfgs(logits, labels), rel=1e-6)


@given(st.integers(0, 1_000), st.floats(-6, 6))
@settings(max_examples=30)
def test_the_factor_of_scaled_logits_is_found(seed: int, exponent: float) -> None:
    logits, labels = _drawn(seed)
    factor = 10**exponent
    calibrated = fitted_temperature(logits, labels)
    assert calibrated == pytest.approx(1, abs=0.15)  # of 4,000 labels that were drawn
    assert fitted_temperature(factor * logits, labels) == pytest.approx(factor * calibrated, rel=1e-9)


@given(classified())
def test_no_other_temperature_is_better(data: tuple[np.ndarray, np.ndarray]) -> None:
    """Where there is none, the loss falls, or at least does not rise, towards an end."""
    logits, labels = data
    found = fitted_temperature(logits, labels)
    ladder = [_loss(temperature, logits, labels) for temperature in np.geomspace(1e-4, 1e8, 97)]
    if not isinstance(found, str):
        assert _loss(found, logits, labels) <= min(ladder) + 1e-9
    elif "same logits" not in found:
        assert min(ladder) >= min(ladder[0], ladder[-1]) - 1e-6


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        ([], [], "no validation texts"),
        ([[0, 1]], [1], "the same logits"),
        ([[0, 1], [5, 6]], [1, 0], "the same logits"),
        ([[0, 1], [3, 0]], [1, 0], "classified right"),
        ([[0, np.finfo(float).max / 4], [3, 0]], [1, 0], "classified right"),
        ([[0, 1], [2, 0]], [0, 1], "no better than equal ones"),
        ([[0, 1], [0, 2], [1, 0]], [1, 0, 0], "no better than equal ones"),
    ],
)
def test_where_there_is_none_the_reason_is_given(logits: list, labels: list, reason: str) -> None:
    found = fitted_temperature(np.array(logits, float).reshape(-1, 2), np.array(labels, int))
    assert isinstance(found, str)
    assert reason in found


def test_one_wrong_text_among_certain_ones_gives_one() -> None:
    logits = np.array([[0, 1e6]] * 99 + [[1e-6, 0]])
    found = fitted_temperature(logits, np.ones(100, int))
    assert isinstance(found, float)
    assert 0 < found < 1e6
