"""The head that is fitted exactly: what scikit-learn's logistic regression finds, where the gradient is zero."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.training.evaluation import mean_loss
from harness.training.head_fit import PATIENCE, STRENGTHS, FittedHead, Read, fit_head

STRENGTH = 0.01


def _read(texts: int, classes: int, seed: int) -> Read:
    """Dimensions as unlike as those of a pretrained network, one of them constant; every class occurs."""
    drawn = np.random.default_rng(seed)
    hidden = drawn.normal(size=(texts, 12)) * 10.0 ** np.linspace(-2, 4, 12) + np.linspace(-5000, 5000, 12)
    hidden[:, 3] = 7.0
    seen = (hidden - hidden.mean(axis=0)) @ np.random.default_rng(9).normal(size=(12, classes)) * 1e-4
    labels = (seen + drawn.gumbel(size=seen.shape)).argmax(axis=1)
    labels[:classes] = np.arange(classes)
    return Read(hidden, labels)


def _weights(labels: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels)
    return (len(labels) / (len(counts) * counts))[labels]


def _fitted(classes: int, balanced: bool) -> tuple[Read, FittedHead]:
    train = _read(200, classes, seed=0)
    weights = _weights(train.labels) if balanced else None
    return train, fit_head(train, _read(50, classes, seed=1), weights, strengths=(STRENGTH,))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_are_scikit_learns(classes: int, balanced: bool) -> None:
    train, head = _fitted(classes, balanced)
    # Its two-class form has one row of weights.
    inverse = (2 if classes == 2 else 1) / (STRENGTH * len(train.labels))
    weight = "balanced" if balanced else None
    theirs = LogisticRegression(C=inverse, class_weight=weight, tol=1e-10, max_iter=10_000)
    pipeline = make_pipeline(StandardScaler(), theirs).fit(train.hidden, train.labels)
    unseen = _read(80, classes, seed=2).hidden
    expected = pipeline.predict_proba(unseen)
    np.testing.assert_allclose(softmax(head.logits(unseen), axis=1), expected, atol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_gradient_of_the_penalised_loss_is_zero(classes: int, balanced: bool) -> None:
    train, head = _fitted(classes, balanced)
    weights = _weights(train.labels) if balanced else np.ones(len(train.labels))
    deviation = train.hidden.std(axis=0)
    deviation[3] = 1
    scaled = (train.hidden - train.hidden.mean(axis=0)) / deviation
    wrong = np.exp(log_softmax(head.logits(train.hidden), axis=1)) - np.eye(classes)[train.labels]
    wrong *= weights[:, None] / weights.sum()
    assert np.abs(wrong.sum(axis=0)).max() < 1e-7
    assert np.abs(wrong.T @ scaled + STRENGTH * head.weight * deviation).max() < 1e-7


def test_the_validation_loss_chooses_the_strength() -> None:
    train, validation = _read(60, 3, seed=0), _read(40, 3, seed=1)
    best = fit_head(train, validation)
    losses = {one: fit_head(train, validation, strengths=(one,)).validation_loss for one in STRENGTHS}
    assert best.strength == min(losses, key=lambda one: losses[one])
    assert best.strength not in (STRENGTHS[0], STRENGTHS[-1]), "else it shows nothing: choose other texts"
    assert best.validation_loss == pytest.approx(losses[best.strength], abs=1e-6)
    assert best.validation_loss == mean_loss(best.logits(validation.hidden), validation.labels)


def test_of_equally_good_strengths_the_strongest_is_taken() -> None:
    """Hidden states that are all alike: only the biases count, whatever the strength."""
    train = Read(np.ones((20, 4)), np.arange(20) % 2)
    assert fit_head(train, train).strength == STRENGTHS[0]


def test_weaker_strengths_are_not_tried_once_several_in_a_row_are_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda self, *given, **more: tried.append(self.C) or fit(self, *given, **more)
    )
    train, validation = _read(60, 3, seed=0), _read(40, 3, seed=1)
    best = fit_head(train, validation)
    assert len(tried) == STRENGTHS.index(best.strength) + 1 + PATIENCE < len(STRENGTHS)
