"""Which columns hold the text and the label: named, or found where one pair alone makes sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config.schema import AUTO, DataConfig
from harness.data.reading.delimited import header_is_missing
from harness.data.reading.table import Table
from harness.errors import UserError

# Names that published data sets give to them, in lower case without blanks, underscores and hyphens.
_TEXTS = """text sentence review reviewtext reviewbody content message body v2 comment commenttext tweet utterance
    document post email sms headline article query question"""
_LABELS = """label labels class classes classindex category categories sentiment intent v1 target topic rating stars
    emotion polarity coarselabel isspam goldlabel isduplicate overall"""
TEXT_NAMES, LABEL_NAMES = _TEXTS.split(), _LABELS.split()
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("texta", "textb"),
)
SPLIT_NAME = "split"


@dataclass(frozen=True)
class Columns:
    """texts: one, or several that are joined, or two that are a pair. how: by what they were found."""

    texts: tuple[str, ...]
    label: str
    pair: bool
    how: str

    def __str__(self) -> str:
        form = " and ".join if self.pair else " + ".join
        shown = form(map(repr, self.texts))
        kind = "text pair" if self.pair else "text"
        return f"{kind} {shown}, label {self.label!r} ({self.how})"


def is_header(row: Sequence[str], config: DataConfig) -> bool:
    """Whether a row of names holds those asked for; else a known name of a text, and one of a label, unless it has two
    columns."""
    asked = {config.label_column, *asked_texts(config.text_column, row)} - {AUTO}
    if asked:
        return asked <= set(row)
    plain = {_plain(name) for name in row}
    has_text = not plain.isdisjoint((*TEXT_NAMES, *sum(PAIRS, ())))
    return has_text and (len(row) == 2 or not plain.isdisjoint(LABEL_NAMES))


def asked_texts(given: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of `data.text_column`: one, or several with commas between them."""
    return (given,) if given in columns else tuple(part.strip() for part in given.split(","))


def find_columns(table: Table, config: DataConfig) -> Columns:
    """Raises UserError, with every column and a sample of it, where not exactly one choice makes sense."""
    texts, label = asked_texts(config.text_column, table.columns), config.label_column
    by_place = _by_place(table) if AUTO in (config.text_column, label) else None
    how = "as asked" if AUTO not in (config.text_column, label) else "by their place" if by_place else "by their names"
    if by_place:
        texts, label = (by_place[0],) if texts == (AUTO,) else texts, by_place[1] if label == AUTO else label
    if label == AUTO:
        label = _one(table, LABEL_NAMES, "label", "data.label_column")
    if texts == (AUTO,):
        texts = pair_in(table.columns) or (_one(table, TEXT_NAMES, "text", "data.text_column"),)
    for column, option in ((label, "data.label_column"), *((text, "data.text_column") for text in texts)):
        if column not in table.columns:
            raise _unknown(table, f"has no column {column!r}", option)
    if label in texts:
        raise UserError(f"data file {table.name!r}: {label!r} can't be both the text and the label; name another one.")
    return Columns(texts, label, _is_pair(texts, config), how)


def _is_pair(texts: tuple[str, ...], config: DataConfig) -> bool:
    if config.pair and len(texts) != 2:
        raise UserError(
            f"data.pair=true: a pair has two texts, data.text_column={','.join(texts)} names {len(texts)}; name two."
        )
    return tuple(map(_plain, texts)) in PAIRS if config.pair is None else config.pair


def pair_in(columns: list[str]) -> tuple[str, ...] | None:
    """The columns of the one known pair, unless one is called text."""
    plain = {_plain(column): column for column in columns}
    found = [pair for pair in PAIRS if "text" not in plain and set(pair) <= plain.keys()]
    return tuple(plain[name] for name in found[0]) if len(found) == 1 else None


def _one(table: Table, names: Sequence[str], standard: str, option: str) -> str:
    """The column with the standard name, else the only one with a known name."""
    found = [column for column in table.columns if _plain(column) in names]
    exact = [column for column in found if _plain(column) == standard]
    if len(exact or found) != 1:
        problem = f"several columns that may be the {standard}" if found else f"no column that may be the {standard}"
        raise _unknown(table, f"has {problem}", option)
    return (exact or found)[0]


def _by_place(table: Table) -> tuple[str, str] | None:
    """Text and label of two columns without a header: the label is the one with fewer values."""
    if table.has_header or len(table.columns) != 2:
        return None
    first, second = sorted(table.columns, key=lambda column: len(set(table.read(column))))
    return second, first


def _unknown(table: Table, problem: str, option: str) -> UserError:
    missing = header_is_missing(table)
    if missing and not any(_plain(column) in TEXT_NAMES for column in table.columns):
        return UserError(f"data file {table.name!r} {problem}: {missing}.")
    if len(table.columns) < 2:
        return UserError(
            f"data file {table.name!r} has one column only, {table.samples() or 'without a name'}: expected a text and "
            "a label, in delimited text with a comma, a semicolon or a tab between them."
        )
    return UserError(
        f"data file {table.name!r} {problem}; its columns are {table.samples()}: name the right one with "
        f'SET="{option}=..."; a file without a header line needs data.header=false.'
    )


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")
