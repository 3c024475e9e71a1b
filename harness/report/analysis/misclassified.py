"""The test messages that strategies get wrong most often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.config.places import without_places
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable
from harness.errors import UserError
from harness.report.analysis.entry import Entry
from harness.results.record import Record

MOST_SHOWN = 10


@dataclass(frozen=True)
class MisclassifiedMessage:
    """index: the row in the source. strategies: how many got it wrong in more than half of their runs; runs: how many
    runs of all strategies got it wrong."""

    index: int
    text: str | None
    label: str | None
    strategies: int
    runs: int


@dataclass(frozen=True)
class Misclassified:
    """The messages of one data set; strategies, runs: how many were tested. no_texts: the reason why there are none."""

    data: str
    strategies: int
    runs: int
    messages: list[MisclassifiedMessage]
    no_texts: str | None


def misclassified(entries: list[Entry], cache: Path) -> list[Misclassified]:
    """One for each data set and split of the table's strategies; baselines don't count."""
    by_data: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.correct and not entry.unpaired and not entry.is_baseline:
            record = entry.ok[0]
            data = without_places(record.config)["data"]
            by_data.setdefault(json.dumps([data, record.ok_data.sha256]), []).append(entry)
    return [_of_data(found, cache) for found in by_data.values()]


def _of_data(entries: list[Entry], cache: Path) -> Misclassified:
    # The newest, as its file is most likely where it was.
    record = max((entry.ok[0] for entry in entries), key=lambda record: record.finished_at)
    runs = sum(len(entry.ok) for entry in entries)
    texts, no_texts = _texts(record, cache)
    messages = []
    for index, strategies, runs_wrong in _worst(entries):
        text, label = (
            (str(texts.at[index, "text"]), str(texts.at[index, "label"])) if texts is not None else (None, None)
        )
        messages.append(MisclassifiedMessage(index, text, label, strategies, runs_wrong))
    return Misclassified(record.ok_data.name, len(entries), runs, messages, no_texts)


def _worst(entries: list[Entry]) -> list[tuple[int, int, int]]:
    """index, strategies and runs, as in MisclassifiedMessage, the worst first."""
    wrong = [1 - pd.DataFrame(entry.correct).astype(int) for entry in entries]
    counts = pd.DataFrame(
        {
            "strategies": sum((frame.mean(axis=1) > 0.5).astype(int) for frame in wrong),
            "runs": sum(frame.sum(axis=1) for frame in wrong),
        }
    )
    # Ties stand in the order of the source, so that the page is the same each time.
    worst = counts[counts["strategies"] > 0].sort_index()
    worst = worst.sort_values(["strategies", "runs"], ascending=False, kind="stable").head(MOST_SHOWN)
    return list(zip(worst.index.tolist(), worst["strategies"].tolist(), worst["runs"].tolist(), strict=True))


def _texts(record: Record, cache: Path) -> tuple[pd.DataFrame | None, str | None]:
    """Columns text and label by row of the source, or the reason why the texts of the run's test are not at hand."""
    try:
        source = load_dataset(DataConfig.model_validate(record.config["data"]), cache).source
    except (UserError, NotAvailable) as error:
        return None, str(error)
    if source.sha256 != record.ok_data.sha256:
        return None, f"{source.name} is not what it was when the runs were made (its sha256 differs)."
    return source.texts, None
