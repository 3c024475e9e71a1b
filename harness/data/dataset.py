"""A data set as a run uses it: loaded, split, and checked for test texts that leak into training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.config.schema import AUTO, DataConfig
from harness.data.leakage import seen_in_training, warnings
from harness.data.official_split import official
from harness.data.sources import SMS_SPAM_NAME, Source, load_source
from harness.data.splits import Split, balance, cut
from harness.data.subsets import nested_subset
from harness.data.tasks import SYNTHETIC_NAME
from harness.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """A source and its split.

    config: with nothing left to `auto`. split: "train", "validation" and "test", each a frame like `source.texts`, with
    its index. test_seen: for each test text whether it is a training text verbatim. test_near_train: how many test
    texts equal a training text but for digits, case and punctuation. notes: what was found and chosen.
    """

    source: Source
    config: DataConfig
    split: Split
    test_seen: list[bool]
    test_near_train: int
    notes: list[str]

    def drawn(self, size: int, seed: int) -> np.ndarray:
        """The positions of a stratified part of the training texts, as `nested_subset` draws it."""
        return nested_subset(self.split["train"]["label"], size, seed)

    def trained_on(self, chosen: np.ndarray) -> Dataset:
        """With the training texts at these positions only."""
        split = {**self.split, "train": self.split["train"].iloc[chosen]}
        seen, near = seen_in_training(split)
        return replace(self, split=split, test_seen=seen, test_near_train=near)


def load_dataset(config: DataConfig, cache: Path) -> Dataset:
    """Load and split the data set that `config.name`, which is not "auto", names.

    Raises UserError for data that can't be used, NotAvailable for a published data set that can't be had.
    """
    source = load_source(config, cache)
    config = source.config.model_copy(update={"split": _split_kind(config, source)})
    split, notes = _split(source, config)
    if not source.is_built_in:
        notes = [*source.notes, *notes, *warnings(source.texts, split)]
    seen, near = seen_in_training(split)
    return Dataset(source, config, split, seen, near, notes)


def _split_kind(config: DataConfig, source: Source) -> str:
    if config.split != AUTO:
        return config.split
    if source.part is not None and source.part.nunique() > 1:
        return "official"
    return "random" if config.name in (SMS_SPAM_NAME, SYNTHETIC_NAME) else "stratified"


def _split(source: Source, config: DataConfig) -> tuple[Split, list[str]]:
    if config.split != "official":
        balanced = config.name == SMS_SPAM_NAME if config.balance is None else config.balance
        assert config.split != AUTO, "it was resolved"
        return cut(source.texts, config.split, balanced, config.split_seed, config.split_sizes), []
    if source.part is None:
        raise UserError(
            f"data.split=official: {config.name!r} has no split of its own; expected train, validation and test files, "
            "a `split` column, or data.split=stratified."
        )
    split, notes = official(source.texts, source.part, config.split_sizes, config.split_seed)
    if config.balance:
        split["train"] = balance(split["train"], config.split_seed)
    return split, notes


def pairs_of(part: pd.DataFrame) -> list[tuple[str, str]]:
    """The two texts of each row."""
    return [(text[: start - 1], text[start:]) for text, start in zip(part["text"], part["second_at"], strict=True)]
