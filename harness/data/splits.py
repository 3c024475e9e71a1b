"""Splitting texts into a training, a validation and a test part, and how many test texts leak into training."""

from __future__ import annotations

import re
from typing import Literal

import pandas as pd

from harness.errors import UserError

SplitKind = Literal["random", "grouped"]
SPLITS = ("train", "validation", "test")
TRAIN_FRACTION, VALIDATION_FRACTION = 0.7, 0.1


def balance(texts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Undersample all classes to the size of the smallest, in order of their names, as the textbook does."""
    smallest = texts["label"].value_counts().min()
    classes = [group for _, group in texts.groupby("label", sort=True)]
    return pd.concat(
        [group.sample(smallest, random_state=seed) if len(group) > smallest else group for group in classes]
    )


def cut(texts: pd.DataFrame, kind: SplitKind, balanced: bool, seed: int) -> dict[str, pd.DataFrame]:
    """Shuffle the texts and cut them 70 / 10 / 20 into the parts SPLITS; `balanced`: after balancing the classes.

    "random" with `balanced` is the textbook's split, which shuffles twice: after balancing and before the cut.
    "grouped" keeps near-duplicates (`near_duplicate_key`) in one part, so a part may be larger by the rest of a group.
    The index of each part is that of `texts`.
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
    split: dict[str, pd.DataFrame] = dict(zip(SPLITS, parts, strict=True))
    for name, part in split.items():
        if part.empty:
            raise UserError(f"{len(texts)} texts are too few: the {name} part of 70/10/20 is empty; give 10 or more.")
    return split


def near_duplicate_key(text: str) -> str:
    """The words of a text without digits, case and punctuation, equal for near-duplicates; else the text itself."""
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip() or text


def seen_in_training(split: dict[str, pd.DataFrame]) -> tuple[list[bool], int]:
    """For each test text whether it is a training text verbatim; and how many test texts are near-duplicates of one,
    the verbatim ones included."""
    train, test = split["train"]["text"], split["test"]["text"]
    keys = set(train.map(near_duplicate_key))
    return test.isin(set(train)).tolist(), sum(near_duplicate_key(text) in keys for text in test)


def _group_together(texts: pd.Series) -> list[int]:
    """An order of positions in which near-duplicates are neighbours, groups in the order of their first member."""
    first_seen: dict[str, int] = {}
    first_of_group = [first_seen.setdefault(near_duplicate_key(text), index) for index, text in enumerate(texts)]
    return sorted(range(len(texts)), key=first_of_group.__getitem__)


def _end_of_group(keys: list[str], end: int) -> int:
    """`end`, moved behind the group that it would cut."""
    while 0 < end < len(keys) and keys[end] == keys[end - 1]:
        end += 1
    return end
