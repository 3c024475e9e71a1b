"""The class that most training texts have; its probabilities are the fractions of the classes."""

from __future__ import annotations

import numpy as np

from harness.baselines import Fitted, LabelledTexts, Part

USES = ("data", "training.texts")


def fit(task: LabelledTexts) -> Fitted:
    fractions = task.counts() / task.counts().sum()

    def probabilities(part: Part) -> np.ndarray:
        return np.tile(fractions, (len(part.texts), 1))

    return Fitted(probabilities)
