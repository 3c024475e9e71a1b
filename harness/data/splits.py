"""Cutting a data set into training, validation and test texts, and what the cut leaks."""

from __future__ import annotations

import re
from typing import Literal

import pandas as pd

from harness.errors import UserError

SplitKind = Literal["random", "grouped"]
SPLITS = ("train", "validation", "test")
TRAIN_FRACTION, VALIDATION_FRACTION = 0.7, 0.1


def balance(texts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """As many texts of each class as the smallest has: the textbook's sample, classes in order of their names."""
    smallest = texts["label"].value_counts().min()
    classes = [group for _, group in texts.groupby("label", sort=True)]
    return pd.concat(
        [group.sample(smallest, random_state=seed) if len(group) > smallest else group for group in classes]
    )


def cut(texts: pd.DataFrame, kind: SplitKind, balanced: bool, seed: int) -> dict[str, pd.DataFrame]:
    """Shuffle and cut 70 / 10 / 20, optionally after balancing the classes.

    `random` with `balanced` is the textbook's split: it shuffles twice, once after balancing and once before the
    cut. `grouped` keeps texts that differ in digits, case and punctuation only on one side of the cut, so its
    sizes may differ by the size of a group.

    Raises UserError where a part would be empty.
    """
    if balanced:
        texts = balance(texts, seed).sample(frac=1, random_state=seed)
    texts = texts.sample(frac=1, random_state=seed)
    if kind == "grouped":
        texts = texts.iloc[_group_together(texts["text"])]
    train_end = int(len(texts) * TRAIN_FRACTION)
    validation_end = train_end + int(len(texts) * VALIDATION_FRACTION)
    if kind == "grouped":
        keys = texts["text"].map(near_duplicate_key).tolist()
        train_end, validation_end = (_end_of_group(keys, end) for end in (train_end, validation_end))
    parts = texts[:train_end], texts[train_end:validation_end], texts[validation_end:]
    split = dict(zip(SPLITS, parts, strict=True))
    for name, part in split.items():
        if part.empty:
            raise UserError(f"{len(texts)} texts are too few: the {name} part of 70/10/20 is empty; give 10 or more.")
    return split


def near_duplicate_key(text: str) -> str:
    """What two near-duplicates share: the letters; a text without any is its own key."""
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip() or text


def seen_in_training(split: dict[str, pd.DataFrame]) -> tuple[list[bool], int]:
    """For each test text whether it stands verbatim in the training texts, and how many do but for digits and
    punctuation."""
    train, test = split["train"]["text"], split["test"]["text"]
    keys = set(train.map(near_duplicate_key))
    return test.isin(set(train)).tolist(), sum(near_duplicate_key(text) in keys for text in test)


def _group_together(texts: pd.Series) -> list[int]:
    """An order in which near-duplicates stand together, groups in the order of their first member."""
    first_seen: dict[str, int] = {}
    ranks = [first_seen.setdefault(near_duplicate_key(text), index) for index, text in enumerate(texts)]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def _end_of_group(keys: list[str], end: int) -> int:
    while 0 < end < len(keys) and keys[end] == keys[end - 1]:
        end += 1
    return end
