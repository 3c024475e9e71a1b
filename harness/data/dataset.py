"""A data set as a run uses it: loaded, split, and checked for test texts that leak into training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.config.schema import DataConfig
from harness.data.downloads import assets_folder
from harness.data.sources import Source, generate_synthetic, load_file, load_sms_spam
from harness.data.splits import cut, seen_in_training


@dataclass(frozen=True)
class Dataset:
    """A source and its split.

    split: "train", "validation" and "test", each a frame like `source.texts`, with its index.
    test_seen: for each test text whether it is a training text verbatim.
    test_near_train: how many test texts equal a training text but for digits, case and punctuation.
    """

    source: Source
    split: dict[str, pd.DataFrame]
    test_seen: list[bool]
    test_near_train: int


def load_dataset(config: DataConfig, cache: Path) -> Dataset:
    """Load and split the data set that `config.name`, which is not "auto", names.

    Raises UserError for a file that can't be used, NotAvailable for a published data set that can't be had.
    """
    source = _load_source(config, cache)
    balanced = config.name == "sms_spam" if config.balance is None else config.balance
    split = cut(source.texts, config.split, balanced, config.split_seed)
    seen, near = seen_in_training(split)
    return Dataset(source, split, seen, near)


def _load_source(config: DataConfig, cache: Path) -> Source:
    if config.name == "synthetic":
        return generate_synthetic(config.size)
    if config.name == "sms_spam":
        return load_sms_spam(cache, assets_folder())
    return load_file(config.name, config.text_column, config.label_column)
