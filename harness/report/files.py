"""The comparison table as files: Markdown, CSV and JSON, from the same columns and rows as the terminal's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from harness.data.fetch import write_atomically
from harness.records import Record, newest_of_each
from harness.report.published import TITLES, PublishedSuite, cells, judged, published_comparison, suites_in, title
from harness.report.published import notes as notes_on_published
from harness.report.scaling import scaling_markdown
from harness.report.table import COLUMNS, conditions, heading, last_line, notes, row_name, rows


def markdown(records: list[Record]) -> str:
    return "\n".join(_markdown_group(group) for group in conditions(records))


def _markdown_group(group: list[Record]) -> str:
    lines = [f"### {_cell(heading(group[0]))}", ""]
    lines.append("| strategy | seed | " + " | ".join(column.title for column in COLUMNS) + " |")
    lines.append("| --- " + "| ---: " * (len(COLUMNS) + 1) + "|")
    for row in rows(group):
        cells = [f"**{cell}**" if best else cell for cell, best in zip(row.cells, row.best, strict=True)]
        name = _cell(row.name) + (f" ({_cell(row.failure)})" if row.failure else "")
        lines.append(f"| {name} | {row.seed} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {_cell(line)}" for line in notes(group)), ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


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
                "metrics": record.metrics.model_dump() if record.metrics else None,
                "throughput": record.throughput.model_dump() if record.throughput else None,
                "seconds": record.seconds.model_dump(),
                "peak_bytes": record.memory.peak_bytes if record.memory else None,
                "world_size": record.engine.world_size,
                "error": last_line(record.error) if record.error else None,
            }
            for record in records
        ]
    )


def comparison(records: list[Record]) -> list[dict[str, Any]]:
    """Each table as data: its heading, its notes, and for each row the values that are compared."""
    return [
        {
            "conditions": heading(group[0]),
            "notes": notes(group),
            "rows": [
                {
                    "name": row_name(record),
                    "run_id": record.run_id,
                    "seed": record.seed,
                    "status": record.status,
                    "values": {column.title: column.value(record) for column in COLUMNS},
                    "test_interval": record.metrics.test.interval if record.metrics else None,
                }
                for record in group
            ],
        }
        for group in conditions(records)
    ]


def _markdown_suite(suite: PublishedSuite, records: list[Record]) -> str:
    lines = judged(suite, records)
    table = [f"### {_cell(title(suite))}", "", "| " + " | ".join(TITLES) + " |", "| ---: " * len(TITLES) + "|"]
    table += ["| " + " | ".join(map(_cell, cells(line))) + " |" for line in lines]
    return "\n".join([*table, "", *(f"- {_cell(line)}" for line in notes_on_published(lines)), ""])


def write_tables(results: Path, records: list[Record]) -> list[Path]:
    """table.md, summary.csv and comparison.json from the newest record of each configuration."""
    kept, suites = newest_of_each(records), suites_in(results)
    published = [published_comparison(suite, records) for suite in suites]
    files = {
        "table.md": markdown(kept) + scaling_markdown(kept) + "\n".join(_markdown_suite(s, records) for s in suites),
        "summary.csv": summary(kept).to_csv(index=False),
        "comparison.json": json.dumps(comparison(kept) + published, indent=2) + "\n",
    }
    for name, content in files.items():
        write_atomically(results / name, content)
    return [results / name for name in files]
