"""Labels that are no classes: several a text, numbers of a regression, one a token."""

from __future__ import annotations

import re

from harness.data.reading.table import Table, shortened
from harness.errors import UserError

_SEPARATORS = "|;,"
_TAG = re.compile(r"[BIESLU]-\S+")  # where a word stands in a name, and of what kind that is
_MOST_NUMBERS = 20  # distinct numbers that may still be classes, as grades are
_FEW = 20  # texts, with which nothing is said of how labels are distributed


def check_single(table: Table, label: str) -> None:
    """Raises UserError for a column that holds a list of labels."""
    values = table.read(label)
    several = next((i for i, value in enumerate(values) if isinstance(value, (list, tuple, dict))), None)
    if several is not None:
        raise UserError(
            f"{table.at(table.places[several])}: {label!r} holds several labels a text ({shortened(values[several])}); "
            "a classifier has one label a text: name a column with one, or keep the texts with one."
        )


def check_classes(table: Table, label: str, labels: list[str], texts: list[str]) -> None:
    """Raises UserError where labels are no classes. labels: without blanks around them, none empty."""
    kinds = set(labels)
    if len(kinds) < 2:
        raise UserError(
            f"data file {table.name!r} has one class only, {labels[0]!r}: "
            "a classifier needs two or more different labels."
        )
    joined = next((one for one in sorted(kinds) if _is_joined(one, kinds)), None)
    if joined:
        raise UserError(
            f"data file {table.name!r}: {label!r} holds several labels a text, such as {joined!r}; "
            "a classifier has one label a text: name a column with one, or keep the texts with one."
        )
    if kinds > {"O"} and all(one == "O" or _TAG.fullmatch(one) for one in kinds):
        raise UserError(
            f"data file {table.name!r}: {label!r} holds a label for each word of the text, such as "
            f"{min(kinds - {'O'})!r}; a classifier has one label a text."
        )
    if len(labels) < _FEW:
        return
    if len(kinds) > _MOST_NUMBERS and any(_is_fraction(one) for one in kinds) and all(map(_is_number, kinds)):
        raise UserError(
            f"data file {table.name!r}: {label!r} holds {len(kinds)} different numbers, such as {labels[0]!r}: that is "
            "a regression; make classes of them, or name a column with classes."
        )
    words = [len(text.split()) for text in texts]
    if len(set(words)) > 1 and words == [len(one.split()) for one in labels]:
        raise UserError(
            f"data file {table.name!r}: {label!r} holds a label for each word of the text, such as "
            f"{shortened(labels[0])}; a classifier has one label a text."
        )
    if len(kinds) > len(labels) / 2:
        raise UserError(
            f"data file {table.name!r}: {label!r} holds {len(kinds)} different values for {len(labels)} texts, such as "
            f"{shortened(labels[0])}: those are no classes; name the column of the labels with "
            'SET="data.label_column=...".'
        )


def _is_joined(label: str, kinds: set[str]) -> bool:
    """Whether a label lists others, as in "spam|seen", or is a list, as in "[1, 2]"."""
    if label.startswith("[") and label.endswith("]") and "," in label:
        return True
    for separator in _SEPARATORS:
        parts = [part.strip() for part in label.split(separator)]
        if len(parts) > 1 and all(part in kinds for part in parts):
            return True
    return False


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _is_fraction(label: str) -> bool:
    return _is_number(label) and not float(label).is_integer()
