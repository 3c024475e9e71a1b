"""What more ranks bring: throughput, efficiency and communication of runs that differ in their engine only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.table.markdown import cell, markdown_table
from harness.report.table.notes import engine_name
from harness.results.names import row_name
from harness.results.record import Record

NOTE = (
    "efficiency: examples per second and core (on GPUs: and GPU), against one rank. exchanged: bytes that a rank hands "
    "to collectives in a step, and the time from their start to their end, waiting for other ranks included."
)
TITLES = ("engine", "ranks", "cores", "examples/s", "efficiency", "exchanged a step", "time of it")


@dataclass(frozen=True)
class ScalingRow:
    """cores: of all ranks together (threads on CPUs, devices on GPUs). efficiency: None where no single rank ran."""

    engine: str
    ranks: int
    cores: int
    examples_per_second: float
    efficiency: float | None
    bytes_per_step: float | None
    milliseconds_per_step: float | None

    def cells(self) -> list[str]:
        def shown(value: float | None, form: str) -> str:
            return "-" if value is None else form.format(value)

        return [
            self.engine,
            str(self.ranks),
            str(self.cores),
            f"{self.examples_per_second:,.0f}",
            shown(self.efficiency, "{:.0%}"),
            shown(self.bytes_per_step and self.bytes_per_step / 1e6, "{:,.2f} MB"),
            shown(self.milliseconds_per_step, "{:.1f} ms"),
        ]


def scaling(records: Sequence[Record]) -> list[tuple[str, list[ScalingRow]]]:
    """For each strategy that ran with more than one number of ranks or engine, on one configuration otherwise.

    What ran, and medians over seeds.
    """
    groups: dict[str, dict[tuple[int, str], list[Record]]] = {}
    for record in records:
        if record.throughput and record.throughput.examples_per_second:
            arrangement = (record.engine.world_size, engine_name(record))
            groups.setdefault(_all_but_engine(record), {}).setdefault(arrangement, []).append(record)
    return [
        (_title(next(iter(arranged.values()))[0]), _rows(arranged)) for arranged in groups.values() if len(arranged) > 1
    ]


def print_scaling(console: Console, records: Sequence[Record], about: Sequence[Record]) -> None:
    """Of `records` those that differ in the engine from one of `about`."""
    asked = {_all_but_engine(record) for record in about}
    tables = scaling([record for record in records if _all_but_engine(record) in asked])
    for title, rows in tables:
        table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
        for number, name in enumerate(TITLES):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row.cells())
        console.print(table)
    if tables:
        console.print(f"  [dim]{NOTE}[/]", highlight=False)


def scaling_markdown(records: Sequence[Record]) -> str:
    lines = []
    for title, rows in scaling(records):
        table = markdown_table(TITLES, [row.cells() for row in rows])
        lines += [f"### {cell(title)}", "", *table, "", f"- {NOTE}", ""]
    return "\n".join(lines)


def _all_but_engine(record: Record) -> str:
    rest = {key: value for key, value in record.config.items() if key not in ("engine", "seed")}
    return json.dumps([rest, record.model.weights_sha256, record.environment["device"]], sort_keys=True)


def _title(record: Record) -> str:
    training, device = record.config["training"], record.environment["device"]
    data = f"{record.config['data']['name']}, {training['epochs']} epochs, batch {training['batch_size']}"
    return f"Scaling of {row_name(record)} on {record.model.name}: {data}, {record.precision}, {device}"


def _rows(arranged: dict[tuple[int, str], list[Record]]) -> list[ScalingRow]:
    rates = {
        key: median(record.throughput.examples_per_second for record in records) for key, records in arranged.items()
    }
    alone = {name: rates[ranks, name] / _cores(arranged[ranks, name][0]) for ranks, name in rates if ranks == 1}
    rows = []
    for (ranks, name), records in sorted(arranged.items()):
        told = [record.communication for record in records if record.communication]
        one = alone.get(name, alone.get("ddp"))
        cores = _cores(records[0])
        rows.append(
            ScalingRow(
                engine=name,
                ranks=ranks,
                cores=cores,
                examples_per_second=rates[ranks, name],
                efficiency=rates[ranks, name] / cores / one if one else None,
                bytes_per_step=median(sum(c.bytes_by_collective.values()) for c in told) if told else None,
                milliseconds_per_step=median(c.milliseconds_per_step for c in told) if told else None,
            )
        )
    return rows


def _cores(record: Record) -> int:
    """Ranks may have more threads than there are cores."""
    environment, ranks = record.environment, record.engine.world_size
    if environment["device"] != "cpu":
        return ranks
    return min(ranks * environment["threads"], record.config["engine"]["nodes"] * environment["cores"])
