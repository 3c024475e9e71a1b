"""The comparison table as files, from the same columns and rows as the terminal's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from harness.files import write_atomically
from harness.report.analysis.comparison import groups
from harness.report.analysis.published import TITLES, cells, judged, published_comparison, title
from harness.report.analysis.published import notes as notes_on_published
from harness.report.analysis.scaling import scaling_markdown
from harness.report.analysis.sweep import curves
from harness.report.table import formats
from harness.report.table.markdown import cell, markdown_table
from harness.report.table.sheet import Sheet, sheets
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out, suites_in


def summary(records: list[Record]) -> pd.DataFrame:
    """One line a run, plain numbers."""
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
                "throughput": record.throughput.model_dump() if record.throughput else {},
                "seconds": record.seconds.model_dump(),
                "peak_bytes": record.memory.peak_bytes if record.memory else None,
                "world_size": record.engine.world_size,
                "error": record.reason if record.error else None,
            }
            for record in records
        ]
    )


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of each part's interval the two ends by name."""
    return {
        name: part and {**part, "interval": dict(zip(("low", "high"), part["interval"], strict=True))}
        for name, part in metrics.items()
    }


def comparison(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """Each table as data: its heading, its notes, and for each row the values that are compared."""
    return [_comparison(sheet) for sheet in sheets]


def _comparison(sheet: Sheet) -> dict[str, Any]:
    numeric = [column for column in sheet.columns if column.best]
    return {
        "conditions": sheet.heading,
        "notes": sheet.notes,
        "learning_rates": [asdict(curve) for curve in curves(sheet.records)],
        "rows": [
            {
                "name": entry.name,
                "run_ids": [record.run_id for record in entry.records],
                "seeds": [record.seed for record in entry.ok],
                "failed_seeds": {record.seed: record.status for record in entry.failures},
                "values": {column.title: column.value(entry) for column in numeric},
                "test_interval": entry.interval,
                "test_deviation": entry.deviation,
                "evidence": asdict(entry.evidence) if entry.evidence else None,
            }
            for entry in sheet.entries
        ],
    }


def _markdown_suite(suite: SavedSuite, records: list[Record]) -> str:
    lines = judged(suite, records)
    table = markdown_table(TITLES, [[cell(text) for text in cells(line)] for line in lines], left=0)
    notes_ = [f"- {cell(line)}" for line in notes_on_published(lines)]
    return "\n".join([f"### {cell(title(suite))}", "", *table, "", *notes_, ""])


def write_tables(store: Store, reference: str | None = None) -> list[Path]:
    """table.md, table.tex, summary.csv and comparison.json from the newest record of each configuration.

    Several commands that share the results folder do it one after the other: the last one has read all records.
    """
    with FileLock(store.results / ".tables.lock"):
        records, suites = store.all(), suites_in(store.results)
        kept = newest_of_each(records)
        published = [suite for suite in suites if suite.is_published]
        shown = sheets(groups(kept, suites), store, reference)
        data = comparison(shown) + [published_comparison(suite, records) for suite in published]
        texts = [formats.markdown(shown), scaling_markdown(kept)]
        told = "".join(f"- Left out: {cell(problem)}\n" for problem in left_out(store))
        files = {
            "table.md": "".join(texts) + "\n".join(_markdown_suite(suite, records) for suite in published) + told,
            "table.tex": formats.latex(shown),
            "summary.csv": summary(kept).to_csv(index=False),
            "comparison.json": json.dumps(data, indent=2) + "\n",
        }
        for name, content in files.items():
            write_atomically(store.results / name, content)
    return [store.results / name for name in files]
