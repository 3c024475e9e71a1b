"""Comparison tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.table.columns import FILES_ONLY, UNMEASURED
from harness.report.table.comparison_table import FULL_VIEW, ComparisonTable, View
from harness.report.table.sweep import print_sweep


def print_tables(console: Console, tables: Sequence[ComparisonTable], view: View = FULL_VIEW) -> None:
    """A rich table for each, the best of each column marked."""
    for table in tables:
        wanted = [n for n in range(len(table.columns)) if view.columns or is_worth_showing(table, n)]
        shown = _that_fit(table, wanted, console.width)
        console.print(_table(table, shown))
        for row in table.rows:
            if row.failure:
                console.print(f"  [bold red]{escape(row.name)}, {escape(row.failure)}[/]")
        print_sweep(console, table.swept)
        if table.in_words:
            console.print(_indented(" ".join(table.in_words)))
            console.print()
        notes = table.notes_on([table.columns[n] for n in shown])
        if len(shown) < len(wanted):
            notes.append("Not every column has room here: table.md has all columns, and what to know about them.")
        for note in notes:
            console.print(_indented(note, "dim"))


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style), (0, 0, 0, 2), expand=False)


def _table(table: ComparisonTable, shown: list[int]) -> Table:
    drawn = Table(title=escape(table.heading), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    drawn.add_column(table.first_title, style="cyan", overflow="fold")
    for index in shown:
        drawn.add_column(escape(table.columns[index].title), justify="right", no_wrap=True)
    strategies = [n for n, entry in enumerate(table.entries) if not entry.is_baseline]
    for number, row in enumerate(table.rows):
        if strategies and number == strategies[-1] + 1:  # only baselines follow
            drawn.add_section()
        cells = [f"[bold green]{row.cells[n]}[/]" if row.best[n] else escape(row.cells[n]) for n in shown]
        drawn.add_row(escape(row.name), *cells)
    return drawn


def is_worth_showing(table: ComparisonTable, index: int) -> bool:
    """Whether a screen shows the column: something was measured, and it is not for files only."""
    measured = any(row.cells[index] != UNMEASURED for row in table.rows)
    return measured and table.columns[index].rank < FILES_ONLY


def _that_fit(table: ComparisonTable, wanted: list[int], width: int) -> list[int]:
    """The indices of the columns that fit beside the name; the most important ones are taken first."""
    left = width - max(len("strategy"), *(len(row.name) for row in table.rows)) - 4
    taken = []
    for index in sorted(wanted, key=lambda index: table.columns[index].rank):
        left -= max(len(table.columns[index].title), *(len(row.cells[index]) for row in table.rows)) + 3
        if left >= 0:
            taken.append(index)
    return sorted(taken)
