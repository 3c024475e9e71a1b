"""The table as a test reads it."""

from __future__ import annotations

import io

from rich.console import Console

from harness.metrics import ACCURACY, Metric
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.table.columns import columns
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.rows import table_rows
from harness.report.table.terminal import print_tables
from harness.results.record import Record
from harness.results.store import Store


def printed(records: list[Record], width: int, store: Store, metric: Metric = ACCURACY) -> str:
    """In a terminal of that width."""
    console = Console(file=io.StringIO(), width=width)
    print_tables(console, comparison_tables(groups(records), store, metric=metric))
    return console.file.getvalue()


def cells_of(records: list[Record], store: Store) -> list[dict[str, str]]:
    """Of each row its cells by title."""
    entries = compare(Group(records), store)
    titles = [column.title for column in columns(entries)]
    return [dict(zip(titles, row.cells, strict=True)) for row in table_rows(entries)]
