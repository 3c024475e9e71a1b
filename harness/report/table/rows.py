"""The comparison table's rows: cells as text, the best of each column, and failures."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.analysis.baselines import no_better_than_length
from harness.report.analysis.entry import Entry, are_costs_comparable
from harness.report.table.columns import UNMEASURED, Column, columns

MARK = "†"  # of a strategy that is no better than the length rule


@dataclass(frozen=True)
class TableRow:
    """cells, best: by column. failure: what went wrong, with the seeds where there are several."""

    name: str
    cells: list[str]
    best: list[bool]
    failure: str | None


def table_rows(entries: list[Entry]) -> list[TableRow]:
    """One for each entry. An entry without an ok run keeps what was measured, and every failure is named."""
    shown = columns(entries)
    winners = [_winner(column, entries) if len(entries) > 1 else None for column in shown]
    return [_row(entry, shown, winners, no_better_than_length(entry, entries)) for entry in entries]


def _competes(entry: Entry) -> bool:
    return bool(entry.ok) and not entry.is_baseline


def _winner(column: Column, entries: list[Entry]) -> float | None:
    if not column.best:
        return None
    competing = [entry for entry in entries if _competes(entry)]
    if column.is_cost and not are_costs_comparable(competing):
        return None
    values = [column.number(entry) for entry in competing]
    measured = [value for value in values if value is not None]
    return column.best(measured) if measured else None


def _row(entry: Entry, shown: list[Column], winners: list[float | None], marked: bool) -> TableRow:
    cells, best = [], []
    for column, winner in zip(shown, winners, strict=True):
        value = column.value(entry)
        cells.append(UNMEASURED if value is None else column.show(entry))
        best.append(winner is not None and value == winner and _competes(entry) and column.is_complete(entry))
    return TableRow(entry.name + (f" {MARK}" if marked else ""), cells, best, _failure(entry))


def _failure(entry: Entry) -> str | None:
    reasons = [f"{record.status}: {record.reason}" for record in entry.failures]
    if len(entry.records) > 1:
        reasons = [f"seed {record.seed} {reason}" for record, reason in zip(entry.failures, reasons, strict=True)]
    return "; ".join(reasons) or None
