"""The comparison table in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.analysis.comparison import Group
from harness.report.analysis.sweep import print_sweep
from harness.report.table.columns import FILES_ONLY, UNMEASURED
from harness.report.table.sheet import WHOLE, Sheet, View, sheets
from harness.results.store import Store


def print_table(
    console: Console, groups: list[Group], store: Store, reference: str | None = None, view: View = WHOLE
) -> None:
    """A rich table for each group, the best of each column marked."""
    for sheet in sheets(groups, store, reference, view):
        wanted = [n for n in range(len(sheet.columns)) if view.columns or _tells_something(sheet, n)]
        shown = _that_fit(sheet, wanted, console.width)
        console.print(_table(sheet, shown))
        for row in sheet.rows:
            if row.failure:
                console.print(f"  [bold red]{escape(row.name)}, {escape(row.failure)}[/]")
        print_sweep(console, sheet.records)
        for line in sheet.notes:
            console.print(f"  [dim]{escape(line)}[/]", highlight=False)
        if len(shown) < len(wanted):
            console.print("  [dim]Not every column has room here: table.md has all columns.[/]")


def _table(sheet: Sheet, shown: list[int]) -> Table:
    table = Table(title=escape(sheet.heading), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    table.add_column(sheet.first_title, style="cyan", overflow="fold")
    for number in shown:
        table.add_column(escape(sheet.columns[number].title), justify="right", no_wrap=True)
    strategies = [n for n, entry in enumerate(sheet.entries) if not entry.is_baseline]
    for number, row in enumerate(sheet.rows):
        if strategies and number == strategies[-1] + 1:  # nothing but baselines follows
            table.add_section()
        cells = [f"[bold green]{row.cells[n]}[/]" if row.best[n] else escape(row.cells[n]) for n in shown]
        table.add_row(escape(row.name), *cells)
    return table


def _tells_something(sheet: Sheet, number: int) -> bool:
    measured = any(row.cells[number] != UNMEASURED for row in sheet.rows)
    return measured and sheet.columns[number].rank < FILES_ONLY


def _that_fit(sheet: Sheet, wanted: list[int], width: int) -> list[int]:
    """Numbers of the columns that have room beside the name, the most important first to be taken."""
    left = width - max(len("strategy"), *(len(row.name) for row in sheet.rows)) - 4
    taken = []
    for number in sorted(wanted, key=lambda number: sheet.columns[number].rank):
        left -= max(len(sheet.columns[number].title), *(len(row.cells[number]) for row in sheet.rows)) + 3
        if left >= 0:
            taken.append(number)
    return sorted(taken)
