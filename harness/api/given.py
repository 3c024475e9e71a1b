"""Labelled texts that a person has in memory: checked, and written as a file that the reader of own data reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.data.reading.columns import SPLIT_NAME, asked_texts, pair_in
from harness.data.reading.table import is_text, shortened
from harness.errors import UserError, did_you_mean
from harness.files import write_atomically
from harness.results.saved_classifier import Label

FOLDER = "data"
TEXT, LABEL = "text", "label"  # columns of the file, and of a DataFrame unless others are named
_LABEL_TYPES = (str, bool, int, float)
_SHOWN = 10
_SHORTEST_HASH = 10


class InvalidInput(UserError, ValueError):
    """A ValueError too, which scikit-learn expects of an estimator."""


@dataclass(frozen=True)
class GivenTexts:
    """texts: none blank. labels: of one type, not all the same. parts: of an official split, as a `split` column names
    them; None: without one. text_column, label_column: of the file. more: its further columns with texts, which its
    reader joins with the first, or takes for a pair."""

    texts: list[str]
    labels: list[Label]
    parts: list[str] | None = None
    text_column: str = TEXT
    label_column: str = LABEL
    more: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[Any], labels: Iterable[Any], parts: Iterable[Any] | None = None) -> GivenTexts:
        """Raises UserError for what are no texts with one label each, with the rows."""
        checked, given = checked_texts(texts), _listed(labels, "label")
        if len(checked) != len(given):
            raise InvalidInput(f"{len(checked):,} texts and {len(given):,} labels: give one label for each text.")
        _check_labels(given)
        return cls(checked, given, None if parts is None else list(map(str, parts)))

    @property
    def label_of(self) -> dict[str, Label]:
        """The label by its name in a record."""
        return {_name(label): label for label in self.labels}

    @property
    def text_columns(self) -> str:
        """As `data.text_column` names them."""
        return ",".join([self.text_column, *self.more])

    def write(self, results: Path) -> Path:
        """The file below a results folder that holds them, named by its content: the same texts are the same file."""
        columns = {self.text_column: self.texts, **self.more, self.label_column: list(map(_name, self.labels))}
        if self.parts is not None:
            columns[SPLIT_NAME] = self.parts
        rows = (json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
        content = "".join(f"{row}\n" for row in rows).encode()
        name = f"texts-{hashlib.sha256(content).hexdigest()[:_SHORTEST_HASH]}.jsonl"
        path = results / FOLDER / name
        if not path.exists():
            write_atomically(path, content)
        return path


def from_frame(frame: pd.DataFrame, text: Any = None, label: Any = None) -> GivenTexts:
    """The columns `text` and `label`, and its official split where a column `split` names one.

    text: a column, or several; None: "text", or the two of a pair that has usual names. label: None: "label". Raises
    UserError where a column is missing, or holds what can't be used.
    """
    texts, label = _text_columns(frame, text), LABEL if label is None else label
    for argument, column in (*(("text", one) for one in texts), ("label", label)):
        if not _has(frame, column):
            raise _missing_column(frame, argument, column)
    if label in texts:
        raise InvalidInput(f"{label!r} can't be both the text and the label: name another column.")
    named = [column for column in frame.columns if str(column).lower() == SPLIT_NAME and column not in texts]
    first, *others = texts
    parts = _column(frame, named[0]) if named else None
    given = GivenTexts.of(_column(frame, first), _column(frame, label), parts)
    if not others:
        return given
    more = {str(column): checked_texts(_column(frame, column)) for column in others}
    return replace(given, more=more, text_column=str(first), label_column=str(label))


def _text_columns(frame: pd.DataFrame, text: Any) -> list[Any]:
    if text is None:
        return [TEXT] if _has(frame, TEXT) else list(pair_in(list(map(str, frame.columns))) or [TEXT])
    if isinstance(text, str):
        return list(asked_texts(text, list(frame.columns)))
    is_list = isinstance(text, Iterable) and not _has(frame, text)  # a tuple is a column where columns have levels
    return (list(text) if is_list else []) or [text]


def _has(frame: pd.DataFrame, column: Any) -> bool:
    return isinstance(column, Hashable) and column in frame.columns


def _missing_column(frame: pd.DataFrame, argument: str, column: Any) -> InvalidInput:
    hint = did_you_mean(str(column), map(str, frame.columns))
    shown = ", ".join(map(repr, frame.columns)) or "none"
    return InvalidInput(
        f'the DataFrame has no column {column!r}: {hint}Its columns are {shown}; name one with {argument}="...".'
    )


def _column(frame: pd.DataFrame, name: Any) -> list[Any]:
    found = frame[name]
    if isinstance(found, pd.DataFrame):
        raise InvalidInput(f"the DataFrame has {found.shape[1]} columns {name!r}: rename all but one.")
    return found.tolist()


def checked_texts(given: Iterable[Any]) -> list[str]:
    """The texts as a list. Raises UserError, with the rows, for what is no text, is blank or can't be written."""
    texts = _listed(given, "text")
    if not texts:
        raise InvalidInput("no text is given: expected at least one (0 sample(s) are no data).")
    _refuse(texts, _is_missing, "texts are missing (None, NaN)", "fill them, or leave out their rows")
    _refuse(texts, lambda text: not isinstance(text, str), "texts are no strings", "give text only")
    _refuse(texts, lambda text: not is_text(text), "texts hold half of a character (a lone surrogate)", "remove it")
    _refuse(texts, lambda text: not text.strip(), "texts are empty", "fill them, or leave out their rows")
    return texts


def _listed(given: Any, what: str) -> list[Any]:
    """what: text or label, for a message. Raises UserError for what is no sequence in one dimension."""
    if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
        raise InvalidInput(f"expected a list of {what}s, not {type(given).__name__} ({shortened(given)}).")
    if (dimensions := getattr(given, "ndim", 1)) != 1:
        raise InvalidInput(
            f"{what}s have {dimensions} dimensions: expected a list of {what}s, or one column, as in frame['{what}']."
        )
    return list(map(_plain, given))


def _check_labels(labels: Sequence[Any]) -> None:
    _refuse(labels, _is_missing, "labels are missing (None, NaN)", "fill them, or leave out their rows")
    kinds = {type(label).__name__: label for label in labels}
    if len(kinds) > 1:
        shown = ", ".join(f"{name} ({shortened(label)})" for name, label in sorted(kinds.items()))
        raise InvalidInput(f"labels of mixed types: {shown}; give them one type, such as frame['label'].astype(str).")
    _refuse(labels, lambda label: not isinstance(label, _LABEL_TYPES), "labels are no classes", "give text or numbers")
    # With the words of scikit-learn, whose checks look for them.
    _refuse(labels, _is_continuous, "labels are no whole numbers (Unknown label type: continuous)", "give classes")
    _refuse(labels, lambda label: not is_text(str(label)), "labels hold half of a character", "remove it")
    _refuse(labels, lambda label: not str(label).strip(), "labels are empty", "fill them, or leave out their rows")
    by_name: dict[str, Any] = {}
    for label in labels:
        other = by_name.setdefault(_name(label), label)
        if other != label:
            raise InvalidInput(f"the labels {other!r} and {label!r} differ in blanks only: rename one.")
    if len(by_name) < 2:
        raise InvalidInput(
            f"the labels have one class only, {labels[0]!r}: a classifier needs two or more different labels."
        )


def _refuse(values: Sequence[Any], is_wrong: Callable[[Any], bool], problem: str, remedy: str) -> None:
    """Raises UserError with the rows of the values that are wrong."""
    rows = [row for row, value in enumerate(values) if is_wrong(value)]
    if rows:
        shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
        example = f"{type(values[rows[0]]).__name__} ({shortened(values[rows[0]])})"
        raise InvalidInput(
            f"{len(rows):,} of {len(values):,} {problem}, counted from 0 in row(s) {shown}; the first is {example}: "
            f"{remedy}."
        )


def _name(label: Label) -> str:
    """Without blanks around it, which the reader of files removes."""
    return str(label).strip()


def _plain(value: Any) -> Any:
    """A value of NumPy as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _is_continuous(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)
