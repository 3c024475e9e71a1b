"""Comparison tables as text for where people paste them: Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.report.analysis.sweep import sweep_markdown
from harness.report.table.columns import Row
from harness.report.table.markdown import cell, markdown_table
from harness.report.table.sheet import Sheet


def markdown(sheets: Sequence[Sheet]) -> str:
    return "\n".join(map(_markdown, sheets))


def _markdown(sheet: Sheet) -> str:
    titles = [sheet.first_title, *(cell(column.title) for column in sheet.columns)]
    lines = [
        f"### {cell(sheet.heading)}",
        "",
        *markdown_table(titles, [_markdown_row(row) for row in sheet.rows]),
        *sweep_markdown(sheet.records),
        "",
        *(f"- {cell(note)}" for note in sheet.notes),
    ]
    return "\n".join([*lines, ""])


def _markdown_row(row: Row) -> list[str]:
    name = cell(row.name) + (f" ({cell(row.failure)})" if row.failure else "")
    return [name, *(f"**{text}**" if best else cell(text) for text, best in zip(row.cells, row.best, strict=True))]


def latex(sheets: Sequence[Sheet]) -> str:
    """A tabular for each table, in the style of booktabs; heading and notes are comments."""
    return "\n".join(["% \\usepackage{booktabs}", *map(_latex, sheets)])


def _latex(sheet: Sheet) -> str:
    titles = [sheet.first_title, *(column.title for column in sheet.columns)]
    frame = pd.DataFrame([[row.name, *row.cells] for row in sheet.rows], columns=titles)
    bold = [["", *("textbf: --rwrap;" * best for best in row.best)] for row in sheet.rows]
    styled = (
        frame.style.apply(lambda _: pd.DataFrame(bold, columns=frame.columns), axis=None)
        .hide(axis="index")
        .format(_after_line_end, escape="latex")
        .format_index(escape="latex", axis="columns")
    )
    table = styled.to_latex(hrules=True, column_format="l" + "r" * len(sheet.columns))
    failures = [f"{row.name}, {row.failure}" for row in sheet.rows if row.failure]
    return "".join(f"% {line}\n" for line in [sheet.heading, *sheet.notes, *failures]) + table


def _after_line_end(text: str) -> str:
    """LaTeX would take a bracket that follows the end of a row for an option of it."""
    return f"{{}}{text}" if text.startswith("[") else text


def csv(sheets: Sequence[Sheet]) -> str:
    """Plain numbers: shares of 1, seconds, bytes. With several tables a first column says which one."""
    frames = [pd.DataFrame(_values(sheet)).convert_dtypes() for sheet in sheets]  # counts without .0
    if len(sheets) > 1:
        for frame, sheet in zip(frames, sheets, strict=True):
            frame.insert(0, "table", sheet.heading)
    return pd.concat(frames).to_csv(index=False)


def json_text(sheets: Sequence[Sheet]) -> str:
    """The numbers of `csv`, with each table's notes."""
    tables = [{"table": sheet.heading, "notes": sheet.notes, "rows": _values(sheet)} for sheet in sheets]
    return json.dumps(tables, indent=2, ensure_ascii=False) + "\n"


def _values(sheet: Sheet) -> list[dict[str, Any]]:
    """For each row its values by the columns' names, with the ends of their intervals; None where there is none."""
    lines = []
    for entry, row in zip(sheet.entries, sheet.rows, strict=True):
        line: dict[str, Any] = {sheet.first_title: entry.name}
        for column in sheet.columns:
            line[column.name] = column.value(entry)
            if column.interval:
                low, high = column.interval(entry) or (None, None)
                line |= {f"{column.name} low": low, f"{column.name} high": high}
        lines.append(line | {"failure": row.failure})
    return lines


FORMATS: dict[str, Callable[[Sequence[Sheet]], str]] = {
    "markdown": markdown,
    "csv": csv,
    "latex": latex,
    "json": json_text,
}


def format_named(name: str) -> Callable[[Sequence[Sheet]], str]:
    """Raises UserError for a format that there is not."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}: expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]
