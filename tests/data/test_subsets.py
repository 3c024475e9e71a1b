"""Parts of the training texts: stratified, and nested."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from harness.data.subsets import nested_subset

_labels = st.lists(st.integers(0, 4), min_size=1, max_size=200).map(pd.Series)


@given(_labels, st.integers(0, 3), st.data())
def test_a_part_holds_the_smaller_ones_of_its_seed(labels: pd.Series, seed: int, data: st.DataObject) -> None:
    small, large = sorted(data.draw(st.tuples(*[st.integers(1, len(labels))] * 2)))
    held, chosen = nested_subset(labels, small, seed), nested_subset(labels, large, seed)
    assert len(set(chosen.tolist())) == large
    assert set(held.tolist()) <= set(chosen.tolist())
    assert (np.diff(chosen) > 0).all()


@given(_labels, st.integers(0, 3), st.data())
def test_every_class_has_about_its_share_and_a_text(labels: pd.Series, seed: int, data: st.DataObject) -> None:
    classes = labels.nunique()
    size = data.draw(st.integers(classes, len(labels))) if classes <= len(labels) else len(labels)
    counts = labels.iloc[nested_subset(labels, size, seed)].value_counts()
    assert len(counts) == classes, "none is without a text"
    share = size * labels.value_counts(normalize=True)
    assert (counts.reindex(share.index) - share).abs().max() <= classes, "off by less than a text a class"


def test_seeds_draw_different_parts() -> None:
    labels = pd.Series([0, 1] * 100)
    drawn = [tuple(nested_subset(labels, 20, seed)) for seed in range(5)]
    assert len(set(drawn)) == 5
