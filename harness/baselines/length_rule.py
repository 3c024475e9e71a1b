"""One threshold on the number of tokens, and a class on each side of it: the best on the training texts."""

from __future__ import annotations

import numpy as np

from harness.baselines import Fitted, LabelledTexts, Part

USES = ("data", "model.name", "training.texts")  # it is the model's tokens that are counted


def fit(task: LabelledTexts) -> Fitted:
    """Of equally good thresholds the lowest. Probabilities: fractions of the classes on each side in training."""
    lengths = task.train.examples.lengths
    thresholds = np.unique(lengths)
    shorter = np.stack([task.counts(lengths <= threshold) for threshold in thresholds])
    longer = task.counts() - shorter
    best = (shorter.max(axis=1) + longer.max(axis=1)).argmax()
    sides = np.stack([shorter[best], longer[best]])
    if not sides[1].any():  # all texts are equally long
        sides[1] = sides[0]
    of_sides = sides / sides.sum(axis=1, keepdims=True)

    def probabilities(part: Part) -> np.ndarray:
        return of_sides[(part.examples.lengths > thresholds[best]).astype(int)]

    return Fitted(probabilities)
