"""Parts of the training texts, for learning curves: stratified, and each within the larger ones of the same draw."""

from __future__ import annotations

import numpy as np
import pandas as pd

# Keeps the draw apart from those of batches and dropout, which are made of seed, epoch and step.
SUBSET = 2


def nested_subset(labels: pd.Series, size: int, seed: int) -> np.ndarray:
    """The positions of `size` of the texts, rising: [size] int64. labels: [texts].

    seed: of the draw; a larger size with the same one holds these texts. Every class has a text, if there are as many
    as classes, and about its share of them.
    """
    return np.sort(_stratified_order(labels, seed)[:size])


def _stratified_order(labels: pd.Series, seed: int) -> np.ndarray:
    """All positions in an order whose beginnings are stratified: of a class with n texts the k-th, from 0, stands
    (k + 1/2) / n of the way, but for the first ones of each class, which lead."""
    shuffled = np.random.default_rng([seed, SUBSET]).permutation(len(labels))
    classes = labels.iloc[shuffled].reset_index(drop=True)
    of_class = classes.groupby(classes, sort=True)
    place = (of_class.cumcount() + 0.5) / of_class.transform("size")
    return shuffled[np.argsort(place.where(of_class.cumcount() > 0, 0.0).to_numpy(), kind="stable")]
