"""Rows and columns of a data file as they stand in it, before anything is said of what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError

_SHOWN = 10


@dataclass(frozen=True)
class Table:
    """Columns of equally many values: text, or whatever JSON and parquet hold.

    name: of the file, as messages show it. columns: their names. read: the values of one. places: where each row
    begins, a line, or its number in files without lines. unit: what `places` count. has_header: whether the names are
    from the file; else they are "1", "2", ... without_header: the table with its header as a row. notes: what was found
    out of the file by looking.
    """

    name: str
    columns: list[str]
    read: Callable[[str], Sequence[Any]]
    places: Sequence[int]
    unit: str = "line"
    has_header: bool = True
    without_header: Callable[[], Table] | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places)

    def texts(self, column: str) -> list[str]:
        """The values as text, "" for what is missing.

        Raises UserError for a value that holds several, or half of a character.
        """
        values = zip(self.places, self.read(column), strict=True)
        texts = [value if type(value) is str else self._text(column, place, value) for place, value in values]
        for place, text in zip(self.places, texts, strict=True):
            if not text.isascii() and not is_text(text):
                raise UserError(f"{self.at(place)}: half of a character (a lone surrogate); remove it.")
        return texts

    def _text(self, column: str, place: int, value: Any) -> str:
        if isinstance(value, (list, dict, tuple)):
            raise UserError(f"{self.at(place)}: {column!r} holds several values ({shortened(value)}), not one.")
        return "" if is_missing(value) else str(value)

    def at(self, place: int) -> str:
        return f"data file {self.name!r}, {self.unit} {place}"

    def at_all(self, places: Sequence[int]) -> str:
        """ "3 line(s): 4, 9, 12"."""
        shown = ", ".join(map(str, places[:_SHOWN])) + (", ..." if len(places) > _SHOWN else "")
        return f"{len(places)} {self.unit}(s): {shown}"

    def samples(self) -> str:
        """Every column with the first of its values, for a message."""
        return ", ".join(f"{column!r} ({shortened(self._first(column))})" for column in self.columns)

    def _first(self, column: str) -> Any:
        values = self.read(column)
        return next((value for value in values if not is_missing(value) and value != ""), "")


def is_missing(value: Any) -> bool:
    """Whether a value is null, or not a number, which tables of numbers write for it."""
    return value is None or value != value


def shortened(value: Any, length: int = 40) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= length else text[: length - 3] + "...")


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
