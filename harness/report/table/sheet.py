"""A comparison table arranged as somebody asked: which of its rows and columns, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import UserError
from harness.report.analysis.comparison import Entry, Group, compare
from harness.report.analysis.sweep import sweep_notes
from harness.report.table.columns import Column, Row, columns, rows
from harness.report.table.notes import headings, notes
from harness.results.record import Record
from harness.results.store import Store


@dataclass(frozen=True)
class View:
    """sort: a column whose best row comes first. columns: the names of those that are shown, in this order; None: all.
    filter: what the name of a row that is shown contains, in upper or lower case."""

    sort: str | None = None
    columns: tuple[str, ...] | None = None
    filter: str = ""


WHOLE = View()


@dataclass(frozen=True)
class Sheet:
    """A table as it is shown. rows: of `entries`, with the cells of `columns`; what is best, the evidence, heading and
    notes are those of the whole table. first_title: of the column with names. records: of all its runs."""

    heading: str
    first_title: str
    columns: list[Column]
    entries: list[Entry]
    rows: list[Row]
    notes: list[str]
    records: list[Record]


def sheets(groups: Sequence[Group], store: Store, reference: str | None = None, view: View = WHOLE) -> list[Sheet]:
    """One for each group of which a row is shown.

    Raises UserError where a column is in no table, or no row's name contains what it is to contain.
    """
    compared = [compare(group, store, reference) for group in groups]
    names = [[column.name for column in columns(entries)] for entries in compared]
    for name in (*(view.columns or ()), *([view.sort] if view.sort else [])):
        _check(name, names)
    made = [_sheet(*of_table, view) for of_table in zip(headings(groups), groups, compared, strict=True)]
    shown = [sheet for sheet in made if sheet.rows]
    if made and not shown:
        there = dict.fromkeys(entry.name for entries in compared for entry in entries)
        raise UserError(f"no row's name contains {view.filter!r}: rows are {', '.join(there)}.")
    return shown


def _sheet(heading: str, group: Group, entries: list[Entry], view: View) -> Sheet:
    found, written = columns(entries), rows(entries)
    wanted = range(len(found)) if view.columns is None else [n for name in view.columns for n in _named(name, found)]
    numbers = list(dict.fromkeys(wanted))
    kept = [n for n, entry in enumerate(entries) if view.filter.casefold() in entry.name.casefold()]
    for number in _named(view.sort, found) if view.sort else []:
        kept.sort(key=lambda n: _missing_last(found[number].place_of(entries[n])))
    told = [*notes(entries), *sweep_notes(group.records), *group.told]
    if len(kept) < len(entries):
        told.append(
            f"Left out: {len(entries) - len(kept)} of {len(entries)} rows, whose name does not contain "
            f"{view.filter!r}; the reference, the verdicts and what is best are those of the whole table."
        )
    return Sheet(
        heading=heading,
        first_title="row" if group.suite else "strategy",
        columns=[found[n] for n in numbers],
        entries=[entries[n] for n in kept],
        rows=[_with_columns(written[n], numbers) for n in kept],
        notes=told,
        records=group.records,
    )


def _with_columns(row: Row, numbers: Sequence[int]) -> Row:
    return replace(row, cells=[row.cells[n] for n in numbers], best=[row.best[n] for n in numbers])


def _missing_last(place: float | None) -> tuple[bool, float]:
    return place is None, place or 0.0


def _named(name: str, found: list[Column]) -> list[int]:
    """The number of the column that `name` means; none where this table does not have it."""
    names = [column.name for column in found]
    return [names.index(meant) for meant in _meant(name, names)[:1]]


def _meant(name: str, names: Sequence[str]) -> list[str]:
    """A column's whole name goes before those that begin with it: `test` is not `test loss`."""
    wanted = name.strip().casefold()
    exact = [known for known in names if known.casefold() == wanted]
    return exact or [known for known in names if wanted and known.casefold().startswith(wanted)]


def _check(name: str, tables: list[list[str]]) -> None:
    meant = [_meant(name, names) for names in tables]
    if tables and not any(meant):
        there = dict.fromkeys(known for names in tables for known in names)
        raise UserError(f"unknown column {name!r}: expected one of {', '.join(there)}.")
    for several in meant:
        if len(several) > 1:
            raise UserError(f"column {name!r} may be {' or '.join(several)}: write more of it.")
