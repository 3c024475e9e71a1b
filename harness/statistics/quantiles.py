"""Ends of intervals and p-values where part of a variance is estimated with few degrees of freedom.

docs/statistics.md gives reasons and sources.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit


def multiplier(fraction: np.ndarray | float, degrees: int, level: np.ndarray | float) -> np.ndarray:
    """Standard errors from the mean to the end of an interval, where `fraction` of the variance is estimated with
    `degrees` of freedom and the rest is known.

    Between a normal and Student's t, so that the interval has its nominal coverage whatever the true fraction is: the
    problem of Welch (1947) with one variance known. Its solution has no closed form; this one is fitted to it.
    """
    normal, student = -ndtri(level / 2), -stdtrit(degrees, level / 2)
    quotient = np.square(normal / student)
    weight = expit((logit(fraction) - np.log(quotient * (1 + 4 / degrees))) / quotient)
    return np.sqrt(normal**2 + (student**2 - normal**2) * fraction * weight)


# Of a bracket 230 wide: what is left is less than a rounding error.
HALVINGS = 64


def two_sided_p(ratio: np.ndarray, fraction: np.ndarray | float, degrees: int) -> np.ndarray:
    """The level at which the interval ends at `ratio` standard errors; at least 1e-100.

    By bisection, since the end of an interval falls with its level. `scipy.optimize` does the same, and takes 0.2 s to
    import.
    """
    lowest, highest = np.log([1e-100, 1 - 1e-6])
    nearest, farthest = (multiplier(fraction, degrees, np.exp(bound)) for bound in (highest, lowest))
    within = np.clip(ratio, nearest, farthest)
    low, high = np.full_like(within, lowest), np.full_like(within, highest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_beyond = multiplier(fraction, degrees, np.exp(middle)) > within
        low, high = np.where(is_beyond, middle, low), np.where(is_beyond, high, middle)
    return np.exp(high)
