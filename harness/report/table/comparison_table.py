"""Comparison tables as they are shown: with the rows and columns that the user asked for, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import UserError
from harness.metrics import ACCURACY, Metric
from harness.report.analysis.comparison import compare
from harness.report.analysis.entry import Entry
from harness.report.analysis.grouping import Group
from harness.report.analysis.layers import LayerCurve, layer_curves
from harness.report.analysis.sweep import SweepCurve, curves
from harness.report.in_words import in_words
from harness.report.table.columns import Column, columns
from harness.report.table.notes.layers import layer_notes
from harness.report.table.notes.note import Note, as_notes
from harness.report.table.notes.table import headings, notes
from harness.report.table.rows import TableRow, table_rows
from harness.report.table.sweep import sweep_notes
from harness.results.store import Store


@dataclass(frozen=True)
class View:
    """What to show of a table.

    sort: a column; its best row comes first. columns: names of the columns, in their order; None: all. filter: only
    rows whose name contains it, ignoring case.
    """

    sort: str | None = None
    columns: tuple[str, ...] | None = None
    filter: str = ""


FULL_VIEW = View()


@dataclass(frozen=True)
class ComparisonTable:
    """rows: of `entries`, with the cells of `columns`. first_title: of the column with names. in_words: sentences on
    all entries. all_notes: those on columns that are not shown, too. swept: what a sweep of learning rates gave, if
    there was one. layers: the strategies that were run at several layers. metric: what rows are compared by.
    conditions: what all rows have in common; none for the rows of a suite.

    What is best, the evidence, heading and notes refer to the full table, not only to the rows that are shown.
    """

    heading: str
    first_title: str
    columns: list[Column]
    entries: list[Entry]
    rows: list[TableRow]
    in_words: list[str]
    all_notes: list[Note]
    swept: list[SweepCurve]
    layers: list[LayerCurve]
    metric: Metric
    conditions: dict[str, object]

    @property
    def notes(self) -> list[str]:
        """What a reader of all columns must know."""
        return self.notes_on(self.columns)

    def notes_on(self, columns: Sequence[Column]) -> list[str]:
        """What a reader of these columns must know."""
        names = {column.name for column in columns}
        return [note.text for note in self.all_notes if note.is_needed(names)]


def comparison_tables(
    groups: Sequence[Group],
    store: Store,
    reference: str | None = None,
    view: View = FULL_VIEW,
    metric: Metric = ACCURACY,
    price: float | None = None,
) -> list[ComparisonTable]:
    """One for each group of which a row is shown. price: of an hour of a device; None: without costs.

    Raises UserError where no table has a column of the view, or no row matches its filter.
    """
    compared = [compare(group, store, reference, metric, price) for group in groups]
    names = [[column.name for column in columns(entries)] for entries in compared]
    for name in (*(view.columns or ()), *([view.sort] if view.sort else [])):
        _check(name, names)
    tables = [_table(*parts, view, metric) for parts in zip(headings(groups), groups, compared, strict=True)]
    shown = [table for table in tables if table.rows]
    if tables and not shown:
        available = dict.fromkeys(entry.name for entries in compared for entry in entries)
        raise UserError(f"no row's name contains {view.filter!r}: rows are {', '.join(available)}.")
    return shown


def _table(heading: str, group: Group, entries: list[Entry], view: View, metric: Metric) -> ComparisonTable:
    all_columns, rows = columns(entries), table_rows(entries)
    names = [column.name for column in all_columns] if view.columns is None else view.columns
    named = [_index(name, all_columns) for name in names]
    shown_columns = list(dict.fromkeys(index for index in named if index is not None))
    shown_rows = [n for n, entry in enumerate(entries) if view.filter.casefold() in entry.name.casefold()]
    sort_by = _index(view.sort, all_columns) if view.sort else None
    if sort_by is not None:
        shown_rows.sort(key=lambda n: _missing_last(all_columns[sort_by].position(entries[n])))
    swept, layers = curves(group.records, metric.name), layer_curves(entries)
    lines = [*notes(entries), *sweep_notes(swept), *layer_notes(layers), *group.notes]
    if len(shown_rows) < len(entries):
        lines.append(
            f"Left out: {len(entries) - len(shown_rows)} of {len(entries)} rows, whose name does not contain "
            f"{view.filter!r}; the reference, the verdicts and what is best are those of the whole table."
        )
    return ComparisonTable(
        heading=heading,
        first_title="row" if group.suite else "strategy",
        columns=[all_columns[n] for n in shown_columns],
        entries=[entries[n] for n in shown_rows],
        rows=[_with_columns(rows[n], shown_columns) for n in shown_rows],
        in_words=in_words(entries),
        all_notes=as_notes(lines),
        swept=swept,
        layers=layers,
        metric=metric,
        conditions=group.conditions,
    )


def _with_columns(row: TableRow, indices: Sequence[int]) -> TableRow:
    return replace(row, cells=[row.cells[n] for n in indices], best=[row.best[n] for n in indices])


def _missing_last(position: float | None) -> tuple[bool, float]:
    return position is None, position or 0.0


def _index(name: str, found: list[Column]) -> int | None:
    """Of the column that `name` means; None where this table does not have it."""
    names = [column.name for column in found]
    matching = _matching(name, names)
    return names.index(matching[0]) if matching else None


def _matching(name: str, names: Sequence[str]) -> list[str]:
    """The column with this name, else those that begin with it: `test` is not `test loss`."""
    wanted = name.strip().casefold()
    exact = [known for known in names if known.casefold() == wanted]
    return exact or [known for known in names if wanted and known.casefold().startswith(wanted)]


def _check(name: str, tables: list[list[str]]) -> None:
    matching = [_matching(name, names) for names in tables]
    if tables and not any(matching):
        available = dict.fromkeys(known for names in tables for known in names)
        raise UserError(f"unknown column {name!r}: expected one of {', '.join(available)}.")
    for several in matching:
        if len(several) > 1:
            raise UserError(f"column {name!r} may be {' or '.join(several)}: write more of it.")
