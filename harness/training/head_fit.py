"""The head fitted exactly: multinomial logistic regression on the hidden states that it reads, by L-BFGS.

The loss of a head with weights W and biases b is

    sum over texts of weight * cross-entropy / sum of weights + strength / 2 * |W|**2

on hidden states that are brought to mean 0 and standard deviation 1 in each dimension, as those of a pretrained network
differ in size by orders of magnitude. The scaling is then made part of W and b. The strength is the one of a grid with
the least mean cross-entropy on the validation texts; weaker ones than are worth trying take most iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.training.evaluation import mean_loss

# Half decades, the strongest first: of equally good ones that is taken.
STRENGTHS = tuple(10 ** (half_decades / 2) for half_decades in range(2, -11, -1))
# Of the gradient's largest component.
TOLERANCE = 1e-8
# Strengths in a row that bring no better head: none weaker is tried then.
PATIENCE = 4
MOST_ITERATIONS = 10_000


@dataclass(frozen=True)
class Read:
    """What the head reads of some texts. hidden: [texts, hidden] float64. labels: [texts] int64."""

    hidden: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class FittedHead:
    """weight: [classes, hidden], bias: [classes], both float64, for hidden states as they are."""

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    validation_loss: float

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """[texts, hidden] -> [texts, classes]."""
        return hidden @ self.weight.T + self.bias


def fit_head(
    train: Read, validation: Read, weights: np.ndarray | None = None, strengths: tuple[float, ...] = STRENGTHS
) -> FittedHead:
    """The best head by the validation texts. Every class, from 0 on, occurs among the training labels.

    weights: [texts], factors of the training texts' losses; None: all 1. strengths: from the strongest on.
    """
    from sklearn.linear_model import LogisticRegression  # takes 2 s, which other strategies do without

    mean, deviation = train.hidden.mean(axis=0), train.hidden.std(axis=0)
    deviation[deviation == 0] = 1
    scaled = (train.hidden - mean) / deviation
    total = len(scaled) if weights is None else weights.sum()
    # Each strength starts where the one before ended.
    regression = LogisticRegression(tol=TOLERANCE, max_iter=MOST_ITERATIONS, warm_start=True)
    best: FittedHead | None = None
    for number, strength in enumerate(strengths):
        if best and number - strengths.index(best.strength) > PATIENCE:
            break
        is_binary = train.labels.max() == 1
        # With two classes it has one row of weights, the difference of two opposite ones: twice |W|**2.
        regression.C = (2 if is_binary else 1) / (strength * total)
        regression.fit(scaled, train.labels, sample_weight=weights)
        weight, bias = regression.coef_, regression.intercept_
        if is_binary:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / deviation
        head = FittedHead(weight, bias - weight @ mean, strength, validation_loss=np.inf)
        loss = mean_loss(head.logits(validation.hidden), validation.labels)
        if best is None or loss < best.validation_loss:
            best = FittedHead(head.weight, head.bias, strength, loss)
    assert best is not None, "there is a strength"
    return best
