"""Differences to a reference, and when they are evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.05
Verdict = Literal["better", "worse", "no evidence"]


@dataclass(frozen=True)
class Difference:
    """The mean of a metric minus the reference's, its 95% interval and the two-sided p-value, each [...]."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def holm(p: np.ndarray) -> np.ndarray:
    """p-values [..., tests] corrected for the number of tests (Holm, 1979)."""
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(stepped)
    np.put_along_axis(corrected, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1), axis=-1)
    return corrected


def verdict(estimate: float, corrected_p: float) -> Verdict:
    if corrected_p >= LEVEL:
        return "no evidence"
    return "better" if estimate > 0 else "worse"
