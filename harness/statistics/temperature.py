"""Temperature scaling: one divisor of all logits that makes confidence match accuracy (Guo et al., ICML 2017,
arXiv:1706.04599). It changes no prediction."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import softmax

# Relative to the largest difference of two logits: below it a slope is rounding.
FLAT = 1e-12


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float | str:
    """The T > 0 for which softmax(logits / T) has the least mean cross-entropy; else the reason why there is none.

    logits: [examples, classes] float64, or log-probabilities. labels: [examples], indices of classes.

    The loss is convex in b = 1 / T, with the slope mean(E[z] - z_label) where E is over softmax(b z). So it has a least
    value at a finite b > 0 if, and only if, its slope is negative at b = 0 and positive for b towards infinity.
    """
    if not len(labels):
        return "there are no validation texts"
    below_top = logits - logits.max(axis=1, keepdims=True)
    if not np.ptp(below_top, axis=0).any():
        return "every validation text gets the same logits"
    of_labels = below_top[np.arange(len(labels)), labels]
    if not of_labels.any():
        return "every validation text is classified right, so that the loss falls for ever as the temperature does"
    scale = -below_top.min()

    def slope(inverse: float) -> float:
        expected = (softmax(inverse * below_top, axis=1) * below_top).sum(axis=1)
        return float((expected - of_labels).mean())

    if slope(0.0) >= -FLAT * scale:
        return "on validation the logits are no better than equal ones, so that no temperature is too high"
    low = high = 1 / scale
    while slope(low) >= 0:
        low /= 2
    while slope(high) <= 0:
        high *= 2
    from scipy.optimize import brentq  # slow to import, and a table of records needs none

    return math.exp(-brentq(lambda exponent: slope(math.exp(exponent)), math.log(low), math.log(high), xtol=1e-13))
