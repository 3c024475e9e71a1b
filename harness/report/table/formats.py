"""Comparison tables as Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.report.table.comparison_table import ComparisonTable
from harness.report.table.markdown import cell, markdown_table
from harness.report.table.rows import TableRow
from harness.report.table.sweep import sweep_markdown


def markdown(tables: Sequence[ComparisonTable]) -> str:
    return "\n".join(map(_markdown, tables))


def _markdown(table: ComparisonTable) -> str:
    titles = [table.first_title, *(cell(column.title) for column in table.columns)]
    lines = [
        f"### {cell(table.heading)}",
        "",
        *markdown_table(titles, [_markdown_row(row) for row in table.rows]),
        *sweep_markdown(table.swept),
        "",
        *([cell(" ".join(table.in_words)), ""] if table.in_words else []),
        *(f"- {cell(note)}" for note in table.notes),
    ]
    return "\n".join([*lines, ""])


def _markdown_row(row: TableRow) -> list[str]:
    name = cell(row.name) + (f" ({cell(row.failure)})" if row.failure else "")
    return [name, *(f"**{text}**" if best else cell(text) for text, best in zip(row.cells, row.best, strict=True))]


def latex(tables: Sequence[ComparisonTable]) -> str:
    """A tabular for each table, in the style of booktabs; heading and notes are comments."""
    return "\n".join(["% \\usepackage{booktabs}", *map(_latex, tables)])


def _latex(table: ComparisonTable) -> str:
    titles = [table.first_title, *(column.title for column in table.columns)]
    frame = pd.DataFrame([[row.name, *row.cells] for row in table.rows], columns=titles)
    bold = [["", *("textbf: --rwrap;" * best for best in row.best)] for row in table.rows]
    styled = (
        frame.style.apply(lambda _: pd.DataFrame(bold, columns=frame.columns), axis=None)
        .hide(axis="index")
        .format(_after_row_end, escape="latex")
        .format_index(escape="latex", axis="columns")
    )
    tabular = styled.to_latex(hrules=True, column_format="l" + "r" * len(table.columns))
    failures = [f"{row.name}, {row.failure}" for row in table.rows if row.failure]
    return "".join(f"% {line}\n" for line in [table.heading, *table.notes, *failures]) + tabular


def _after_row_end(text: object) -> str:
    """LaTeX reads a bracket after the end of a row as an option of the row's end."""
    return f"{{}}{text}" if str(text).startswith("[") else str(text)


def frame(tables: Sequence[ComparisonTable]) -> pd.DataFrame:
    """Plain numbers: accuracies from 0 to 1, seconds, bytes. With several tables the first column names the table."""
    frames = [pd.DataFrame(_values(table)).convert_dtypes() for table in tables]  # counts without .0
    if len(tables) > 1:
        for one, table in zip(frames, tables, strict=True):
            one.insert(0, "table", table.heading)
    return pd.concat(frames, ignore_index=True)


def csv(tables: Sequence[ComparisonTable]) -> str:
    """The numbers of `frame`."""
    return frame(tables).to_csv(index=False)


def json_text(tables: Sequence[ComparisonTable]) -> str:
    """The numbers of `csv`, with each table's notes."""
    data = [{"table": table.heading, "notes": table.notes, "rows": _values(table)} for table in tables]
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _values(table: ComparisonTable) -> list[dict[str, Any]]:
    """For each row its values by name of the column, with the ends of their intervals; None where not measured."""
    rows = []
    for entry, row in zip(table.entries, table.rows, strict=True):
        values: dict[str, Any] = {table.first_title: entry.name}
        for column in table.columns:
            values[column.name] = column.value(entry)
            if column.interval:
                low, high = column.interval(entry) or (None, None)
                values |= {f"{column.name} low": low, f"{column.name} high": high}
        rows.append(values | {"failure": row.failure})
    return rows


FORMATS: dict[str, Callable[[Sequence[ComparisonTable]], str]] = {
    "markdown": markdown,
    "csv": csv,
    "latex": latex,
    "json": json_text,
}


def format_named(name: str) -> Callable[[Sequence[ComparisonTable]], str]:
    """Raises UserError for an unknown format."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}: expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]
