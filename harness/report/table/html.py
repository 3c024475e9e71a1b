"""Comparison tables as HTML, for a notebook's output."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.table.comparison_table import ComparisonTable
from harness.report.table.terminal import is_worth_showing
from harness.report.templates import filled_in


def html(tables: Sequence[ComparisonTable]) -> str:
    """Elements without a page around them, every text escaped; the columns that a terminal shows."""
    shown = [
        (table, [number for number in range(len(table.columns)) if is_worth_showing(table, number)]) for table in tables
    ]
    return filled_in("notebook.html.j2", shown=shown)
