"""Comparison tables as HTML, for a notebook's output."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from harness.report.table.comparison_table import ComparisonTable
from harness.report.table.terminal import is_worth_showing


def html(tables: Sequence[ComparisonTable]) -> str:
    """Elements without a page around them, every text escaped; the columns that a terminal shows."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        (table, [number for number in range(len(table.columns)) if is_worth_showing(table, number)]) for table in tables
    ]
    return environment.get_template("notebook.html.j2").render(shown=shown)
