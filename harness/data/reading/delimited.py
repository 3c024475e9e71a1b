"""Delimited text: which delimiter, whether quotation marks quote, whether the first line names the columns.

The standard library's reader, since it alone says in which line a row begins.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Literal

from harness.data.reading.decoding import TextFile
from harness.data.reading.table import Table
from harness.errors import UserError

Quoting = Literal["auto", "minimal", "none"]
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_IN_ORDER = {".csv": ",;\t", ".tsv": "\t;,", ".txt": "\t;,"}
_LOOKED_AT = 200  # rows
csv.field_size_limit(2**31 - 1)  # any text is read: it is cut later, where the model's context ends

Rows = list[tuple[int, list[str]]]  # the line where each begins, and its values
IsHeader = Callable[[Sequence[str]], bool]


def read_delimited(
    name: str, text: TextFile, kind: str, quoting: Quoting, header: bool | None, is_header: IsHeader
) -> tuple[Table, Quoting]:
    """The table, and how quotation marks were read.

    kind: the ending of the file, whose usual delimiter is tried first. header: None: found out. is_header: whether a
    row consists of names that are known or asked for.
    Raises UserError, with the line, for quotation marks that are left open, or a row that is too long.
    """
    delimiter = _delimiter(text, kind, is_header)
    rows, quoting = _rows(name, text, delimiter, quoting)
    if header is None:
        header = not rows or is_header(_names(rows[0][1])) or not _is_data(rows)
    notes = _notes(delimiter, kind, quoting == "none" and _has_quotes(text), header)
    beyond = _beyond_the_names(rows) if header else 0
    if beyond:
        notes.append(f"{beyond} row(s) go on in columns without a name, which are not used")
    return _table(name, rows, header, notes), quoting


def _table(name: str, rows: Rows, header: bool, notes: list[str]) -> Table:
    names = _names(rows[0][1]) if header and rows else []
    width = len(names) if header else max((len(values) for _, values in rows), default=0)
    columns = _numbered(names, width)
    body = rows[1:] if header else rows
    for line, values in body:
        if any(values[width:]):
            raise UserError(
                f"data file {name!r}, line {line}: {len(values)} columns, but the header has {width}; "
                "put quotes around a text that holds the separator."
            )
    return Table(
        name=name,
        columns=list(columns),
        read=lambda column: _column(name, body, columns, column),
        places=[line for line, _ in body],
        has_header=header,
        without_header=partial(_table, name, rows, False, []) if header else None,
        notes=notes,
    )


def _beyond_the_names(rows: Rows) -> int:
    """How many rows have values behind the last column with a name."""
    named = max((number for number, name in enumerate(rows[0][1], start=1) if name.strip()), default=0) if rows else 0
    return sum(any(map(str.strip, values[named:])) for _, values in rows[1:])


def _has_quotes(text: TextFile) -> bool:
    return any('"' in line for line in text.open())


def _notes(delimiter: str, kind: str, plain_quotes: bool, header: bool) -> list[str]:
    notes = []
    if kind == ".txt" or not _IN_ORDER[kind].startswith(delimiter):
        notes.append(f"separated by {DELIMITERS[delimiter]}")
    if plain_quotes:
        notes.append("quotation marks are part of the texts")
    if not header:
        notes.append("no header line")
    return notes


def _delimiter(text: TextFile, kind: str, is_header: IsHeader) -> str:
    """The first, in the order usual for files of that kind, that cuts every row alike; else one that cuts the header
    into known names; else the usual one."""
    order = _IN_ORDER[kind]
    looked_at = {}
    for delimiter in order:
        reader = csv.reader(text.open(), delimiter=delimiter)
        looked_at[delimiter] = [row for row in islice(reader, _LOOKED_AT) if _holds_data(row, delimiter)]
    several = [delimiter for delimiter, rows in looked_at.items() if rows and len(rows[0]) > 1]
    named = [delimiter for delimiter in several if is_header(_names(looked_at[delimiter][0]))]
    alike = [delimiter for delimiter in several if len({len(row) for row in looked_at[delimiter]}) == 1]
    both = [delimiter for delimiter in alike if delimiter in named]
    return (both or named or alike or several or [order[0]])[0]


def _rows(name: str, text: TextFile, delimiter: str, quoting: Quoting) -> tuple[Rows, Quoting]:
    """Quotation marks quote nothing where every line has as many values without them, and with them rows are lost."""
    if quoting == "none" or not _has_quotes(text):
        return list(_read(name, text, delimiter, quotes=False)), "none" if quoting == "none" else "minimal"
    unquoted = None if quoting == "minimal" else _even_rows(name, text, delimiter)
    if unquoted is None:
        return list(_read(name, text, delimiter, quotes=True)), "minimal"
    try:
        quoted = list(_read(name, text, delimiter, quotes=True))
    except UserError:
        return unquoted, "none"
    loses_rows = len(quoted) < len(unquoted) and _fewest_values(unquoted) <= _fewest_values(quoted)
    return (unquoted, "none") if loses_rows else (quoted, "minimal")


def _even_rows(name: str, text: TextFile, delimiter: str) -> Rows | None:
    """The rows with quotation marks as text; None as soon as those are no table of two columns or more."""
    rows: Rows = []
    for line, values in _read(name, text, delimiter, quotes=False):
        if len(values) < 2 or (rows and len(values) != len(rows[0][1])):
            return None
        rows.append((line, values))
    return rows


def _fewest_values(rows: Rows) -> float:
    """Different values of the column with the fewest, as labels are; infinite where rows differ in length.

    Lines that are parts of a quoted text would bring more.
    """
    if len({len(values) for _, values in rows}) != 1:
        return float("inf")
    return min(len(set(column)) for column in zip(*(values for _, values in rows), strict=True))


def _read(name: str, text: TextFile, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader, line = csv.reader(text.open(), delimiter=delimiter, quoting=quoting, strict=True), 1
    try:
        for values in reader:
            if _holds_data(values, delimiter):
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"data file {name!r}, line {line}: {error}; check the quotes from there on.") from error


def _holds_data(values: list[str], delimiter: str) -> bool:
    """Not so blank lines, lines of delimiters alone, and the line that names the delimiter to a spreadsheet."""
    if not values or (len(values) <= 2 and delimiter.join(values) == f"sep={delimiter}"):
        return False
    return bool(values[0].strip()) or any(value.strip() for value in values)


def _names(row: Sequence[str]) -> list[str]:
    return [name.strip() for name in row]


def _numbered(names: list[str], width: int) -> dict[str, list[int]]:
    """Where each name stands; columns without a name have their number, counted from 1."""
    columns: dict[str, list[int]] = {}
    for position in range(width):
        given = names[position] if position < len(names) else ""
        columns.setdefault(given or str(position + 1), []).append(position)
    return columns


def _column(name: str, rows: Rows, columns: dict[str, list[int]], column: str) -> list[str]:
    position, *others = columns[column]
    if others:
        raise UserError(f"data file {name!r} has two columns {column!r}: rename one of them.")
    return [values[position] if position < len(values) else "" for _, values in rows]


def _is_data(rows: Rows) -> bool:
    """Whether the first row is no header: of two columns one has its value again below, and few values in all."""
    first, rest = rows[0][1], [values for _, values in rows[1:]]
    if len(first) != 2 or not rest:
        return False
    columns = list(zip(*(values for values in rest if len(values) == 2), strict=True))
    return bool(columns) and any(_recurs(value, column) for value, column in zip(first, columns, strict=True))


def _recurs(value: str, column: Sequence[str]) -> bool:
    counts = Counter(column)
    return value in counts and len(counts) <= len(column) / 2


def header_is_missing(table: Table) -> str | None:
    """How to read a table whose header is its first row of data, as the options say it; None where it is none.

    The label is the column with the fewest values, two or more, of those whose first value recurs. Texts have blanks
    and hardly recur.
    """
    plain = table.without_header and table.without_header()
    if plain is None or len(plain.columns) < 2:
        return None
    columns = {number: plain.read(number) for number in plain.columns}
    kinds = {number: len(set(values)) for number, values in columns.items()}
    labels = [number for number, (first, *rest) in columns.items() if kinds[number] > 1 and _recurs(first, rest)]
    if not labels:
        return None
    label = min(labels, key=kinds.__getitem__)
    others = [number for number in columns if number != label]
    texts = [number for number in others if kinds[number] > len(plain) / 2 and _mostly_blanks(columns[number])]
    return (
        f"its first line is data, not names ({plain.samples()}): say that there is no header, and which columns to "
        f'use, such as SET="data.header=false data.label_column={label} data.text_column={",".join(texts or others)}"'
    )


def _mostly_blanks(values: Sequence[str]) -> bool:
    return sum(" " in value.strip() for value in values) > len(values) / 2
