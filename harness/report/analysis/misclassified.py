"""The test messages that strategies get wrong most often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable
from harness.errors import UserError
from harness.report.analysis.comparison import Entry
from harness.results.record import Record

MOST_SHOWN = 10


@dataclass(frozen=True)
class Mistake:
    """index: the row in the source. strategies: those that were wrong in more than half of their runs; runs: all."""

    index: int
    text: str | None
    label: str | None
    strategies: int
    runs: int


@dataclass(frozen=True)
class Mistakes:
    """Of the strategies that were tested on one data set. missing: why there are no texts."""

    data: str
    strategies: int
    runs: int
    found: list[Mistake]
    missing: str | None


def mistakes(entries: list[Entry], cache: Path) -> list[Mistakes]:
    """One for each data set and cut of the table's strategies; baselines have no say."""
    by_data: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.correct and not entry.unread and not entry.is_baseline:
            record = entry.ok[0]
            by_data.setdefault(json.dumps([record.config["data"], record.data.sha256]), []).append(entry)
    return [_of_data(found, cache) for found in by_data.values()]


def _of_data(entries: list[Entry], cache: Path) -> Mistakes:
    wrong = {entry.name: pd.DataFrame(entry.correct).rsub(1).astype(int) for entry in entries}
    counts = pd.DataFrame(
        {
            "strategies": sum((frame.mean(axis=1) > 0.5).astype(int) for frame in wrong.values()),
            "runs": sum(frame.sum(axis=1) for frame in wrong.values()),
        }
    )
    # Equal ones in the order of the source, so that the page is the same each time.
    worst = counts[counts["strategies"] > 0].sort_index()
    worst = worst.sort_values(["strategies", "runs"], ascending=False, kind="stable").head(MOST_SHOWN)
    texts, missing = _texts(entries[0].ok[0], cache)
    found = [
        Mistake(index, *(texts.loc[index, ["text", "label"]] if texts is not None else (None, None)), *numbers)
        for index, *numbers in worst.itertuples()
    ]
    return Mistakes(entries[0].ok[0].data.name, len(entries), sum(len(entry.ok) for entry in entries), found, missing)


def _texts(record: Record, cache: Path) -> tuple[pd.DataFrame | None, str | None]:
    """Columns text and label by row of the source, or why the texts that the run was tested on are not at hand."""
    try:
        source = load_dataset(DataConfig.model_validate(record.config["data"]), cache).source
    except (UserError, NotAvailable) as error:
        return None, str(error)
    if source.sha256 != record.data.sha256:
        return None, f"{source.name} is not what it was when the runs were made (its sha256 differs)."
    return source.texts, None
