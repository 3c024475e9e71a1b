"""Labelled texts: the SMS Spam Collection, the user's own file, or generated ones."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from harness.data import synthetic
from harness.data.downloads import Remote, fetch
from harness.errors import UserError

SMS_SPAM = Remote(
    name="the SMS Spam Collection",
    path="sms_spam/SMSSpamCollection",
    url="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
    member="SMSSpamCollection",
)
FILE_TYPES = (".csv", ".tsv", ".jsonl")
csv.field_size_limit(2**31 - 1)  # any text is read: it is cut later, where the model's context ends
SYNTHETIC_SEED = 0


@dataclass(frozen=True)
class Source:
    """A data set before it is split.

    texts: columns `label` and `text` (str), indexed by row of the source.
    sha256: of the source file, or of the generated texts.
    best_accuracy: expected accuracy of the best possible classifier, where it is known.
    """

    name: str
    texts: pd.DataFrame
    sha256: str
    best_accuracy: float | None = None

    @property
    def classes(self) -> list[str]:
        return sorted(self.texts["label"].unique())


def load_sms_spam(cache: Path, assets: Path | None) -> Source:
    """The SMS Spam Collection as the textbook reads it: pandas' default quoting merges two lines, 5,572 rows.

    Raises NotAvailable where the file can't be had.
    """
    path = fetch(SMS_SPAM, cache, assets)
    texts = pd.read_csv(path, sep="\t", header=None, names=["label", "text"])
    return Source("sms_spam", texts, SMS_SPAM.sha256)


def generate_synthetic(size: int) -> Source:
    """`size` messages of harness.data.synthetic, the same ones each time."""
    messages = synthetic.generate(size, SYNTHETIC_SEED)
    texts = pd.DataFrame({"label": [m.label for m in messages], "text": [m.text for m in messages]})
    content = "\n".join(f"{m.label}\t{m.text}" for m in messages)
    best = 1 - synthetic.FLIPPED_FRACTION
    return Source("synthetic", texts, hashlib.sha256(content.encode()).hexdigest(), best)


def load_file(given: str, text_column: str, label_column: str) -> Source:
    """Read a csv, tsv or jsonl file in UTF-8 that has a text and a label column.

    Raises UserError, with line numbers, for a file that can't be read as such.
    """
    path = Path(given).expanduser()
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(f"data file {given!r}: expected a name that ends in one of {', '.join(FILE_TYPES)}.")
    if not path.is_file():
        raise UserError(f"data file {given!r} does not exist: check the path; a relative one counts from {Path.cwd()}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"data file {given!r} can't be read ({error.strerror}): check its permissions.") from error
    try:
        # str.splitlines would also cut at characters that may be part of a text, such as U+2028.
        lines = list(io.StringIO(content.decode("utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"data file {given!r}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8.") from error
    kind, columns = path.suffix.lower(), (text_column, label_column)
    if kind == ".jsonl":
        rows = list(_json_rows(given, lines, columns))
    else:
        rows = list(_delimited_rows(given, lines, columns, separator="," if kind == ".csv" else "\t"))
    if not rows:
        raise UserError(f"data file {given!r} is empty: expected rows with {text_column!r} and {label_column!r}.")
    texts = _checked(given, rows, text_column, label_column)
    return Source(path.name, texts, hashlib.sha256(content).hexdigest())


# The number of the line where it begins, and its values by column.
_FileRow = tuple[int, dict[str, str]]


def _delimited_rows(given: str, lines: list[str], columns: tuple[str, str], separator: str) -> Iterator[_FileRow]:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"data file {given!r}, line {line}: {error}; check the quotes from there on.") from error
        if not header:
            header = values
            twice = next((name for name in columns if header.count(name) > 1), None)
            if twice:
                raise UserError(f"data file {given!r} has two columns {twice!r}: rename one of them.")
        elif any(values[len(header) :]):
            raise UserError(
                f"data file {given!r}, line {line}: {len(values)} columns, but the header has {len(header)}; "
                "put quotes around a text that holds the separator."
            )
        elif values:
            yield line, dict(zip_longest(header, values[: len(header)], fillvalue=""))


def _json_rows(given: str, lines: list[str], columns: tuple[str, str]) -> Iterator[_FileRow]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # JSONDecodeError, or a number with thousands of digits
            reason = getattr(error, "msg", error)
            raise UserError(f"data file {given!r}, line {number}: not JSON ({reason}).") from error
        if not isinstance(row, dict):
            raise UserError(f"data file {given!r}, line {number}: expected an object with a text and a label.")
        nested = next((key for key in columns if isinstance(row.get(key), (dict, list))), None)
        if nested:
            raise UserError(f"data file {given!r}, line {number}: {nested!r} holds several values; expected a text.")
        values = {key: "" if value is None else str(value) for key, value in row.items()}
        if not all(is_text(values.get(key, "")) for key in columns):
            raise UserError(f"data file {given!r}, line {number}: half of a character (a lone surrogate); remove it.")
        yield number, values


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8.

    It can't with lone surrogates: Python makes them of other bytes on a command line, JSON holds them as halves of a
    character.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(given: str, rows: list[_FileRow], text_column: str, label_column: str) -> pd.DataFrame:
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    for column, option in ((text_column, "data.text_column"), (label_column, "data.label_column")):
        if column not in columns:
            raise UserError(
                f"data file {given!r} has no column {column!r}, only {', '.join(map(repr, columns))}: "
                f'name the right one with SET="{option}=..."; a csv or tsv file needs a header line, and columns that '
                "are separated by commas or tabs."
            )
        empty = [number for number, row in rows if not row.get(column, "").strip()]
        if empty:
            shown = ", ".join(map(str, empty[:10])) + (", ..." if len(empty) > 10 else "")
            raise UserError(
                f"data file {given!r}: {column!r} is empty on {len(empty)} line(s): {shown}; fill or remove them."
            )
    texts = pd.DataFrame(
        {"label": [row[label_column].strip() for _, row in rows], "text": [row[text_column] for _, row in rows]}
    )
    if texts["label"].nunique() < 2:
        raise UserError(
            f"data file {given!r} has one class only, {texts['label'].iloc[0]!r}: "
            "a classifier needs two or more different labels."
        )
    return texts
