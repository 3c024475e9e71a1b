"""Splits of one's own, and parts of the training texts: stratified by class, in sizes that are asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.schema import DataConfig
from harness.config.suite import load_suite
from harness.data.dataset import load_dataset
from harness.data.splits import cut, cut_off
from harness.data.subsets import nested_subset
from harness.errors import UserError

few = settings(max_examples=100)
sizes_of_classes = st.lists(st.integers(1, 60), min_size=2, max_size=12).filter(lambda counts: sum(counts) >= 20)
percentages = st.sampled_from([(70, 10, 20), (80, 10, 10), (34, 33, 33), (98, 1, 1), (33.3, 33.3, 33.4)])


def texts_of(counts: list[int]) -> pd.DataFrame:
    labels = [f"class {number}" for number, count in enumerate(counts) for _ in range(count)]
    return pd.DataFrame({"label": labels, "text": [f"text {number}" for number in range(len(labels))]})


@given(sizes_of_classes, percentages, st.integers(0, 2**32 - 1))
@few
def test_every_part_has_its_share_of_each_class(counts: list[int], sizes: tuple, seed: int) -> None:
    texts = texts_of(counts)
    split = cut(texts, "stratified", False, seed, sizes)
    assert sorted(index for part in split.values() for index in part.index) == list(range(len(texts)))
    found = [Counter(part["label"]) for part in split.values()]
    for number, count in enumerate(counts):
        of_class = [part[f"class {number}"] for part in found]
        if count >= 3:
            assert min(of_class) >= 1, "it is trained on, chosen by and tested on"
        if count == 1:
            assert of_class == [1, 0, 0]
        if count == 2:
            assert of_class[0] >= 1
    small = sum(count * size / 100 < 1 for count in counts for size in sizes)
    for part, size in zip(split.values(), sizes, strict=True):
        assert abs(len(part) - len(texts) * size / 100) <= 1 + small


def test_large_classes_are_cut_to_a_text() -> None:
    split = cut(texts_of([1000, 370, 90]), "stratified", False, 0)
    assert [Counter(part["label"]) for part in split.values()] == [
        {"class 0": 700, "class 1": 259, "class 2": 63},
        {"class 0": 100, "class 1": 37, "class 2": 9},
        {"class 0": 200, "class 1": 74, "class 2": 18},
    ]


def test_a_stratified_split_is_shuffled_by_its_seed() -> None:
    texts = texts_of([50, 50])
    first, again, other = (cut(texts, "stratified", False, seed)["train"].index.tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert first != sorted(first)


def test_a_fraction_is_cut_off_alike_in_each_class() -> None:
    rest, part = cut_off(texts_of([80, 40]), 1 / 8, 0)
    assert Counter(part["label"]) == {"class 0": 10, "class 1": 5}
    assert sorted([*rest.index, *part.index]) == list(range(120))


@pytest.mark.parametrize("given_sizes", ["50/25/25", [50, 25, 25]])
def test_sizes_that_are_asked_for(tmp_path: Path, given_sizes: object) -> None:
    texts_of([40, 40]).to_csv(tmp_path / "data.csv", index=False)
    config = DataConfig.model_validate({"name": str(tmp_path / "data.csv"), "split_sizes": given_sizes})
    assert [len(part) for part in load_dataset(config, tmp_path).split.values()] == [40, 20, 20]
    random = config.model_copy(update={"split": "random"})
    assert [len(part) for part in load_dataset(random, tmp_path).split.values()] == [40, 20, 20]


@pytest.mark.parametrize("given_sizes", ["70/20", "70/20/20", "100/0/0", "a/b/c"])
def test_sizes_that_are_none(given_sizes: str) -> None:
    with pytest.raises(UserError, match="split_sizes"):
        load_suite(None, {}, [f"data.split_sizes={given_sizes}"])


def test_the_embedded_data_keeps_its_split() -> None:
    """The gate's reference and the published tables stand on it."""
    dataset = load_dataset(DataConfig(name="synthetic", size=300), Path())
    assert dataset.config.split == "random"
    shuffled = dataset.source.texts.sample(frac=1, random_state=123)
    assert dataset.split["train"].index.tolist() == shuffled.index[:210].tolist()


def test_many_classes_of_two_texts_fill_every_part() -> None:
    split = cut(texts_of([2] * 40), "stratified", False, 0)
    assert [len(part) for part in split.values()] == [56, 8, 16]
    assert split["train"]["label"].nunique() == 40


# Parts of the training texts

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
