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


def two_sided_p(ratio: np.ndarray, fraction: np.ndarray | float, degrees: int) -> np.ndarray:
    """The level at which the interval ends at `ratio` standard errors; at least 1e-100."""
    from scipy.optimize.elementwise import find_root  # slow to import, and a table of single runs needs none

    lowest, highest = np.log([1e-100, 1 - 1e-6])
    nearest, farthest = (multiplier(fraction, degrees, np.exp(bound)) for bound in (highest, lowest))
    within = np.clip(ratio, nearest, farthest)

    def excess(logarithm: np.ndarray, ratio: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        return multiplier(fraction, degrees, np.exp(logarithm)) - ratio

    bracket = (np.full_like(within, lowest), np.full_like(within, highest))
    return np.exp(find_root(excess, bracket, args=(within, fraction)).x)
