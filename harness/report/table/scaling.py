"""The scaling table and what is simulated from it, in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.analysis.scaling import ScalingRow, configuration_but_engine, scaling
from harness.report.analysis.simulation import SimulatedPoint, Simulation, simulations, worth
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


SIMULATED_NOTE = (
    "simulated, not measured: examples per second and efficiency if each rank has a batch, cores and a link like those "
    "measured, with checkpoints and failures. An example costs the inverse of the efficiency, relative to one rank. A "
    "rank is worth it that does at least half of what one alone does."
)
SIMULATED_RANKS = (1, 8, 64, 1024)
SIMULATED_TITLES = ("simulated", *(f"{ranks:,} rank{'s' if ranks > 1 else ''}" for ranks in SIMULATED_RANKS))


def simulated_cells(simulation: Simulation) -> list[str]:
    """In the order of SIMULATED_TITLES."""
    points = {point.ranks: point for point in simulation.weak}
    rates = [f"{points[n].examples_per_second:,.0f} ({points[n].efficiency:.0%})" for n in SIMULATED_RANKS]
    return [simulation.engine, *rates]


def worth_notes(found: Sequence[Simulation]) -> list[str]:
    """How many ranks each engine is worth, in words."""
    return [
        f"{one.engine}, simulated: {_worth(one.weak)} if the batch grows with the ranks, {_worth(one.strong)} if it "
        f"stays at {one.costs.batch}."
        for one in found
    ]


def _worth(points: Sequence[SimulatedPoint]) -> str:
    most = worth(points)
    if most == 1:
        return "not worth more than one rank"
    cost = next(point.cost for point in points if point.ranks == most)
    return f"worth up to {most:,} ranks, where an example costs {cost:.2g} times as much,"


def print_scaling(console: Console, records: Sequence[Record], about: Sequence[Record]) -> None:
    """The tables of those `records` that differ from one of `about` in the engine only."""
    wanted = {configuration_but_engine(record) for record in about}
    tables = scaling([record for record in records if configuration_but_engine(record) in wanted])
    notes = [SCALING_NOTE] if tables else []
    for title, rows in tables:
        _print(console, title, SCALING_TITLES, [scaling_cells(row) for row in rows])
        if simulated := simulations(rows):
            _print(console, None, SIMULATED_TITLES, [simulated_cells(one) for one in simulated])
            console.print("".join(f"  {note}\n" for note in worth_notes(simulated)), highlight=False, markup=False)
            notes = [SCALING_NOTE, SIMULATED_NOTE]
    for note in notes:
        console.print(f"  [dim]{note}[/]", highlight=False)


def _print(console: Console, title: str | None, titles: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    shown = escape(title) if title else None
    table = Table(title=shown, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for number, name in enumerate(titles):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)


def scaling_markdown(records: Sequence[Record]) -> str:
    lines = []
    for title, rows in scaling(records):
        table = markdown_table(SCALING_TITLES, [scaling_cells(row) for row in rows])
        lines += [f"### {cell(title)}", "", *table, "", f"- {SCALING_NOTE}", ""]
        if simulated := simulations(rows):
            lines += [*markdown_table(SIMULATED_TITLES, [simulated_cells(one) for one in simulated]), ""]
            lines += [*(f"- {note}" for note in (*worth_notes(simulated), SIMULATED_NOTE)), ""]
    return "\n".join(lines)
