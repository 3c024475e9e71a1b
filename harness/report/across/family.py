"""Tables that differ in one thing only, taken together: their rows side by side, and verdicts over all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import statistics
from harness.report.analysis.entry import Entry
from harness.report.table.comparison_table import ComparisonTable

MARKS: dict[statistics.Verdict, str] = {"better": "↑", "worse": "↓", "no evidence": ""}


@dataclass(frozen=True)
class Cell:
    """A row's entry in one of the tables. verdict: against the reference; None for itself, or where none is possible.

    difference: to the reference, as in the table; None where the verdict is.
    """

    entry: Entry
    verdict: statistics.Verdict | None = None

    @property
    def difference(self) -> float | None:
        return self.entry.evidence.difference if self.entry.evidence and self.verdict else None

    def as_data(self) -> dict[str, Any]:
        score = self.entry.score
        return {
            "mean": score and score.mean,
            "interval": score and score.interval,
            "seeds": [record.seed for record in self.entry.ok],
            "difference": self.difference,
            "verdict": self.verdict,
        }

    @property
    def text(self) -> str:
        """Mean and interval in percent, and the verdict's mark."""
        score = self.entry.score
        if score is None:
            return "failed" if self.entry.failures else "-"
        low, high = score.interval
        shown = f"{100 * score.mean:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
        return f"{shown} {MARKS[self.verdict]}".rstrip() if self.verdict else shown


@dataclass(frozen=True)
class Family:
    """tables: in order of what they differ in. rows: by name of the row, its cell in each table; None where it has
    none. comparisons: how many verdicts hold together, at an error of 5% for all of them (Holm)."""

    tables: list[ComparisonTable]
    rows: dict[str, list[Cell | None]]
    reference: str
    comparisons: int

    @classmethod
    def of(cls, tables: Sequence[ComparisonTable]) -> Family:
        """The reference is the last table's, and compared are the tables that have it."""
        references = [entry.evidence.reference for entry in tables[-1].entries if entry.evidence]
        reference = references[0] if references else tables[-1].entries[0].name
        compared = [
            (table_number, entry)
            for table_number, table in enumerate(tables)
            for entry in table.entries
            if entry.evidence and entry.evidence.reference == reference
        ]
        evidence = [entry.evidence for _, entry in compared if entry.evidence]
        corrected = statistics.holm(np.array([one.p for one in evidence]))
        verdicts: dict[tuple[int, str], statistics.Verdict] = {
            (number, entry.name): statistics.verdict(one.difference, float(p))
            for (number, entry), one, p in zip(compared, evidence, corrected, strict=True)
        }
        rows: dict[str, list[Cell | None]] = {}
        for number, table in enumerate(tables):
            for entry in table.entries:
                row = rows.setdefault(entry.name, [None] * len(tables))
                row[number] = Cell(entry, verdicts.get((number, entry.name)))
        return cls(list(tables), rows, reference, len(verdicts))

    def as_data(self) -> dict[str, list[dict[str, Any] | None]]:
        """Each row's mean, interval, difference to the reference and verdict in each table, as plain numbers."""
        return {name: [cell and cell.as_data() for cell in row] for name, row in self.rows.items()}


def alike(
    tables: Sequence[ComparisonTable],
    without: Callable[[dict[str, Any]], dict[str, Any]],
    value: Callable[[ComparisonTable], Any],
) -> Iterator[list[ComparisonTable]]:
    """Tables, several, with the same conditions but for what `without` drops, one for each `value`, in its order.

    Of tables with the same value the one with the newest record counts. Suites of rows have no conditions.
    """
    families: dict[str, dict[Any, ComparisonTable]] = {}
    for table in sorted(tables, key=_newest):
        if table.conditions and any(entry.ok for entry in table.entries):
            key = json.dumps(without(dict(table.conditions)), sort_keys=True, default=str)
            families.setdefault(key, {})[value(table)] = table
    for family in families.values():
        if len(family) > 1:
            yield [family[one] for one in sorted(family)]


def _newest(table: ComparisonTable) -> str:
    return max(record.finished_at for entry in table.entries for record in entry.records)
