"""The scaling table, in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.analysis.scaling import ScalingRow, configuration_but_engine, scaling
from harness.report.table.markdown import cell, markdown_table
from harness.results.record import Record

SCALING_NOTE = (
    "efficiency: examples per second and core (on GPUs: and GPU), against one rank. exchanged: bytes that a rank hands "
    "to collectives in a step, and the time from their start to their end, waiting for other ranks included."
)
SCALING_TITLES = ("engine", "ranks", "cores", "examples/s", "efficiency", "exchanged a step", "time of it")


def scaling_cells(row: ScalingRow) -> list[str]:
    """In the order of SCALING_TITLES."""

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    return [
        row.engine,
        str(row.ranks),
        str(row.cores),
        f"{row.examples_per_second:,.0f}",
        shown(row.efficiency, "{:.0%}"),
        shown(row.bytes_per_step and row.bytes_per_step / 1e6, "{:,.2f} MB"),
        shown(row.milliseconds_per_step, "{:.1f} ms"),
    ]


def print_scaling(console: Console, records: Sequence[Record], about: Sequence[Record]) -> None:
    """The tables of those `records` that differ from one of `about` in the engine only."""
    wanted = {configuration_but_engine(record) for record in about}
    tables = scaling([record for record in records if configuration_but_engine(record) in wanted])
    for title, rows in tables:
        table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
        for number, name in enumerate(SCALING_TITLES):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*scaling_cells(row))
        console.print(table)
    if tables:
        console.print(f"  [dim]{SCALING_NOTE}[/]", highlight=False)


def scaling_markdown(records: Sequence[Record]) -> str:
    lines = []
    for title, rows in scaling(records):
        table = markdown_table(SCALING_TITLES, [scaling_cells(row) for row in rows])
        lines += [f"### {cell(title)}", "", *table, "", f"- {SCALING_NOTE}", ""]
    return "\n".join(lines)
