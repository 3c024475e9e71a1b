"""Labelled texts: the SMS Spam Collection, generated ones, or those of one's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from harness.config.places import data_title, is_hub
from harness.config.schema import DataConfig
from harness.data.downloads import Remote, assets_folder, fetch
from harness.data.reading.hub_datasets import load_hub_dataset
from harness.data.reading.own_data import load_own_data
from harness.data.tasks import TASKS

SMS_SPAM_NAME = "sms_spam"
BUILT_IN = (SMS_SPAM_NAME, *TASKS)
SMS_SPAM = Remote(
    name="the SMS Spam Collection",
    path="sms_spam/SMSSpamCollection",
    url="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
    member="SMSSpamCollection",
)
TASK_SEED = 0


@dataclass(frozen=True)
class Source:
    """A data set before it is split.

    texts: columns `label` and `text` (str), indexed by row of the source; of pairs also `second_at`, where in `text`
    the second begins. sha256: of the source's files, or of the generated texts. config: with what was found out of the
    data. part: of each text in the split that comes with it; None where none does. best_accuracy: expected accuracy of
    the best possible classifier, where it is known.
    """

    name: str
    texts: pd.DataFrame
    sha256: str
    config: DataConfig
    part: pd.Series | None = None
    notes: list[str] = field(default_factory=list)
    best_accuracy: float | None = None

    @property
    def classes(self) -> list[str]:
        return sorted(self.texts["label"].unique())

    @property
    def is_built_in(self) -> bool:
        return self.config.name in BUILT_IN


def load_source(config: DataConfig, cache: Path) -> Source:
    """Raises UserError for data that can't be used, NotAvailable for a published data set that can't be had."""
    if config.name in TASKS:
        return _generated(config)
    if config.name == SMS_SPAM_NAME:
        return _sms_spam(config, cache)
    own = load_hub_dataset(config, cache) if is_hub(config.name) else load_own_data(config)
    return Source(data_title(config.name), own.texts, own.sha256, own.config, own.part, own.notes)


def _sms_spam(config: DataConfig, cache: Path) -> Source:
    """As the textbook reads it: pandas' default quoting merges two lines, 5,572 rows."""
    path = fetch(SMS_SPAM, cache, assets_folder())
    texts = pd.read_csv(path, sep="\t", header=None, names=["label", "text"])
    return Source(SMS_SPAM_NAME, texts, SMS_SPAM.sha256, _with_columns(config))


def _generated(config: DataConfig) -> Source:
    """`config.size` messages of a task, the same ones each time."""
    task = TASKS[config.name]
    messages = task.generate(config.size, TASK_SEED)
    texts = pd.DataFrame({"label": [m.label for m in messages], "text": [m.text for m in messages]})
    content = "\n".join(f"{m.label}\t{m.text}" for m in messages)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return Source(config.name, texts, sha256, _with_columns(config), best_accuracy=task.best_accuracy)


def _with_columns(config: DataConfig) -> DataConfig:
    """A user's columns are those of files; built-in data has its own."""
    return config.model_copy(update={"text_column": "text", "label_column": "label", "pair": False})
