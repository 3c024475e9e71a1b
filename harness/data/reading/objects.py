"""JSON: an array of objects, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.data.reading.decoding import TextFile
from harness.data.reading.table import Table
from harness.errors import UserError


def read_objects(name: str, text: TextFile) -> Table:
    """A table of an array, or of lines. Raises UserError, with the line, for what is neither."""
    first = next((line.lstrip() for line in text.open() if line.strip()), "")
    is_array = first.startswith("[")
    rows = list((_array if is_array else _lines)(name, text))
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    clean = {column: column.strip() for column in columns}
    if len(set(clean.values())) < len(columns):
        clean = {column: column for column in columns}  # they differ in blanks only
    original = {shown: column for column, shown in clean.items()}
    return Table(
        name=name,
        columns=list(original),
        read=lambda column: [row.get(original[column]) for _, row in rows],
        places=[place for place, _ in rows],
        unit="item" if is_array else "line",
    )


def _array(name: str, text: TextFile) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.load(text.open())
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(
            f"data file {name!r}, line {line}: no array of objects ({getattr(error, 'msg', error)})."
        ) from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"data file {name!r}, item {number}: expected an object with a text and a label.")
        yield number, row


def _lines(name: str, text: TextFile) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.open(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # JSONDecodeError, or a number with thousands of digits
            reason = getattr(error, "msg", error)
            raise UserError(f"data file {name!r}, line {number}: no JSON object on one line ({reason}).") from error
        if not isinstance(row, dict):
            raise UserError(f"data file {name!r}, line {number}: expected an object with a text and a label.")
        yield number, row
