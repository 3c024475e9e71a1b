"""Splitting texts into a training, a validation and a test part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from harness.errors import UserError

SplitKind = Literal["random", "stratified", "grouped"]
Sizes = tuple[float, float, float]
Split = dict[str, pd.DataFrame]
SPLITS = ("train", "validation", "test")
DEFAULT_SIZES = (70, 10, 20)
# By byte: letters in lower case, a blank for all else.
_ASCII_WORDS = bytes(ord(chr(byte).lower()) if chr(byte).isalpha() and byte < 128 else 32 for byte in range(256))


def balance(texts: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Undersample all classes to the size of the smallest, in order of their names, as the textbook does."""
    smallest = texts["label"].value_counts().min()
    classes = [group for _, group in texts.groupby("label", sort=True)]
    return pd.concat(
        [group.sample(smallest, random_state=seed) if len(group) > smallest else group for group in classes]
    )


def cut(texts: pd.DataFrame, kind: SplitKind, balanced: bool, seed: int, sizes: Sizes = DEFAULT_SIZES) -> Split:
    """Shuffle the texts and cut them by `sizes` (percentages) into the parts SPLITS; `balanced`: after balancing.

    "random" with `balanced` is the textbook's split, which shuffles twice: after balancing and before the cut.
    "stratified" gives every part the same share of each class, and each class that has three texts one text of each.
    "grouped" keeps near-duplicates (`near_duplicate_key`) in one part, so a part may be larger by the rest of a group.
    The index of each part is that of `texts`.
    Raises UserError where a part would be empty.
    """
    if balanced:
        texts = balance(texts, seed).sample(frac=1, random_state=seed)
    texts = texts.sample(frac=1, random_state=seed)
    if kind == "stratified":
        part = _stratified(texts["label"], sizes)
        parts: Sequence[pd.DataFrame] = [texts[part == number] for number in range(3)]
    else:
        if kind == "grouped":
            texts = texts.iloc[_group_together(texts["text"])]
        train_end = int(len(texts) * (sizes[0] / 100))
        validation_end = train_end + int(len(texts) * (sizes[1] / 100))
        if kind == "grouped":
            keys = texts["text"].map(near_duplicate_key).tolist()
            train_end, validation_end = (_end_of_group(keys, end) for end in (train_end, validation_end))
        parts = texts[:train_end], texts[train_end:validation_end], texts[validation_end:]
    split: Split = dict(zip(SPLITS, parts, strict=True))
    for name, texts_of_part in split.items():
        if texts_of_part.empty:
            raise UserError(
                f"{len(texts)} texts are too few: the {name} part of {'/'.join(f'{size:g}' for size in sizes)} is "
                "empty; give 10 or more."
            )
    return split


def cut_off(texts: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The texts without a stratified fraction of them, and that fraction, both in a shuffled order."""
    texts = texts.sample(frac=1, random_state=seed)
    part = _stratified(texts["label"], (100 * (1 - fraction), 100 * fraction, 0.0))
    return texts[part == 0], texts[part == 1]


def near_duplicate_key(text: str) -> str:
    """The words of a text without digits, case and punctuation, equal for near-duplicates; else the text itself."""
    if text.isascii():  # the same in a fifth of the time
        return b" ".join(text.encode().translate(_ASCII_WORDS).split()).decode() or text
    return re.sub(r"[\W\d_]+", " ", text.casefold()).strip() or text


def _stratified(labels: pd.Series, sizes: Sizes) -> np.ndarray:
    """The part of each text, 0 to 2: [texts]. Each class is cut by `sizes`, up to a text a part.

    What rounding gave a part too much in one class, it gets less of the next.
    """
    part, owed = np.empty(len(labels), dtype=int), np.zeros(len(sizes))
    for positions in labels.groupby(labels, sort=True).indices.values():
        owed += len(positions) * np.array(sizes) / 100
        counts = _at_least_one(_apportioned(len(positions), owed), sizes)
        owed -= counts
        part[positions] = np.repeat(range(len(sizes)), counts)
    return part


def _apportioned(count: int, owed: np.ndarray) -> np.ndarray:
    """`count` texts by what each part is owed: the whole ones, and the rest by the largest fractions."""
    counts = np.floor(np.maximum(owed, 0)).astype(int)
    while counts.sum() > count:  # others have been given more than they were owed
        counts[np.argmin(np.where(counts > 0, owed - counts, np.inf))] -= 1
    while counts.sum() < count:
        counts[np.argmax(owed - counts)] += 1
    return counts


def _at_least_one(counts: np.ndarray, sizes: Sizes) -> np.ndarray:
    """A class with as many texts as there are parts has one in each; any has one in the training part."""
    asked = [part for part, size in enumerate(sizes) if size]
    for part in asked if counts.sum() >= len(asked) else asked[:1]:
        if not counts[part]:
            counts[counts.argmax()] -= 1
            counts[part] += 1
    return counts


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
