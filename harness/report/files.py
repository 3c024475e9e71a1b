"""The tables as files, from the same columns and rows as in the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from harness.files import write_atomically
from harness.metrics import ACCURACY, Metric
from harness.report.across.matrix import matrices_markdown
from harness.report.across.overview import overviews, overviews_as_data
from harness.report.analysis.grouping import groups
from harness.report.table import formats
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.report.table.markdown import cell
from harness.report.table.published import published_comparison, published_markdown
from harness.report.table.scaling import scaling_markdown
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out, suites_in


def summary(records: list[Record]) -> pd.DataFrame:
    """One row for each run, with plain numbers."""
    return pd.json_normalize(
        [
            {
                **record.model_dump(include={"run_id", "status", "strategy", "readout", "seed", "precision"}),
                "model": record.model.name,
                "weights": record.model.weights,
                "data": record.data.name if record.data else None,
                "trainable_parameters": record.model.trainable_parameters,
                "learning_rate": record.config.get("optimizer", {}).get("learning_rate"),
                "metrics": _plain(record.metrics.model_dump()) if record.metrics else {},
                "calibration": record.calibration.model_dump() if record.calibration else {},
                "throughput": record.throughput.model_dump() if record.throughput else {},
                "seconds": record.seconds.model_dump(),
                "peak_bytes": record.memory.peak_bytes if record.memory else None,
                "energy": _energy(record),
                "world_size": record.engine.world_size,
                "error": record.reason if record.error else None,
            }
            for record in records
        ]
    )


def _energy(record: Record) -> dict[str, float | None]:
    """Watt-hours, where they were measured."""
    if record.energy is None or record.energy.watt_hours is None:
        return {}
    return record.energy.model_dump(include={"watt_hours", "per_thousand_predictions"})


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    """With the ends of each split's interval by name."""
    return {
        name: part and {**part, "interval": dict(zip(("low", "high"), part["interval"], strict=True))}
        for name, part in metrics.items()
    }


def comparison(tables: Sequence[ComparisonTable]) -> list[dict[str, Any]]:
    """Each table as data: its heading, its notes, and for each row the values that are compared."""
    return [_comparison(table) for table in tables]


def _comparison(table: ComparisonTable) -> dict[str, Any]:
    numeric = [column for column in table.columns if column.best]
    return {
        "conditions": table.heading,
        "in_words": table.in_words,
        "notes": table.notes,
        "metric": table.metric.name,
        "learning_rates": [asdict(curve) for curve in table.swept],
        "rows": [
            {
                "name": entry.name,
                "run_ids": [record.run_id for record in entry.records],
                "seeds": [record.seed for record in entry.ok],
                "failed_seeds": {record.seed: record.status for record in entry.failures},
                "values": {column.title: column.value(entry) for column in numeric},
                "test_interval": entry.interval,
                "test_metrics": {name: asdict(score) for name, score in entry.scores.items()},
                "test_deviation": entry.deviation,
                "evidence": asdict(entry.evidence) if entry.evidence else None,
            }
            for entry in table.entries
        ],
    }


@dataclass(frozen=True)
class WrittenTables:
    """paths: of the files. tables: what they show of `records`, the newest of each configuration, and `suites`."""

    paths: list[Path]
    tables: list[ComparisonTable]
    records: list[Record]
    suites: list[SavedSuite]

    def are_of(self, records: Sequence[Record], suites: Sequence[SavedSuite]) -> bool:
        """Whether tables of these would be the same."""
        runs, shown = ({record.run_id for record in some} for some in (self.records, records))
        return runs == shown and self.suites == [*suites]


def write_tables(
    store: Store, reference: str | None = None, metric: Metric = ACCURACY, price: float | None = None
) -> WrittenTables:
    """table.md, table.tex, summary.csv and comparison.json from the newest record of each configuration.

    Commands that share the results folder take turns, so that the last one has read all records.
    """
    with FileLock(store.results / ".tables.lock"):
        records, suites = store.all(), suites_in(store.results)
        newest = newest_of_each(records)
        published = [suite for suite in suites if suite.is_published]
        tables = comparison_tables(groups(newest, suites), store, reference, metric=metric, price=price)
        data = comparison(tables) + overviews_as_data(tables)
        data += [published_comparison(suite, records) for suite in published]
        texts = [matrices_markdown(overviews(tables)), formats.markdown(tables), scaling_markdown(newest)]
        texts.append("\n".join(published_markdown(suite, records) for suite in published))
        problems = "".join(f"- Left out: {cell(problem)}\n" for problem in left_out(store))
        files = {
            "table.md": "".join([*texts, problems]),
            "table.tex": formats.latex(tables),
            "summary.csv": summary(newest).to_csv(index=False),
            "comparison.json": json.dumps(data, indent=2) + "\n",
        }
        for name, content in files.items():
            write_atomically(store.results / name, content)
    return WrittenTables([store.results / name for name in files], tables, newest, suites)
