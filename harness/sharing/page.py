"""The page of shared results: models and devices compared over all contributions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.report.analysis.comparison import DEFAULT_REFERENCE
from harness.report.analysis.entry import Entry
from harness.report.analysis.grouping import Group, groups
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.report.table.markdown import cell, markdown_table
from harness.report.table.notes.device import settings_of
from harness.report.table.notes.table import headings
from harness.report.table.rows import TableRow
from harness.results.names import engine_name
from harness.results.record import Record
from harness.results.store import newest_of_each
from harness.sharing.contribution import MANIFEST, Contribution

PAGE = "table.md"
# Conditions of a table that depend on the machine.
_OF_MACHINE = ("precision", "engine", "deterministic", "tf32")
# Columns of a comparison table, by name, and the titles of all that is measured.
_MEASURED = ("test", "time", "examples/s", "memory")
_TITLES = ("seeds", "test % [95%]", "time", "examples/s", "memory")
_HEADER = """# Shared results

Made by `ftbench check-results --write` from the records below this folder; [how to add yours](README.md).

test %: mean accuracy on the test texts and its 95% interval, over seeds and texts, of a baseline over texts. time: from
the data to the end of the evaluation; * without what another run had stored of its frozen part. time, examples/s and
memory are medians over seeds. memory: above the start of the run, by the definition of the device (resident on a CPU,
allocated on a GPU), so that it compares strategies, not devices. † no better than one threshold on the number of
tokens. Verdicts, of the rows of one machine: `ftbench table --results results/shared/NAME --format markdown`.

## Contributions

"""
_BASELINE_NOTE = "Baselines draw nothing at random: each stands once, with the first machine that ran it."


@dataclass(frozen=True)
class _Measured:
    """A table of one contribution."""

    contribution: Contribution
    table: ComparisonTable

    @property
    def records(self) -> list[Record]:
        return [record for entry in self.table.entries for record in entry.records]

    @property
    def device(self) -> str:
        """With all that differs between machines: ranks, engine, precision, settings."""
        ran = next((one for one in self.records if not one.strategy_source.is_baseline), self.records[0])
        parts = [device_name(ran)]
        if ran.engine.name and (ran.engine.name, ran.engine.world_size) != ("ddp", 1):
            parts.append(f"{engine_name(ran)} x {ran.engine.world_size}")
        return ", ".join([*parts, *([ran.precision] if ran.precision else []), *settings_of(ran)])


def device_name(record: Record) -> str:
    """The GPU, or the processor with its cores."""
    environment = record.environment
    if environment["device"] != "cpu":
        return environment["device"]
    return f"{environment['processor']}, {environment['cores']} cores"


def page_of(contributions: Sequence[Contribution]) -> str:
    """contributions: without problems, by name."""
    tables = [_Measured(one, table) for one in contributions for table in _tables_of(one)]
    families = _families(tables)
    groups = [
        Group([record for one in family for record in one.records], conditions=_shared_conditions(family[0]))
        for family in families
    ]
    lines = [*_contributions(contributions), "", *_overview(families), ""]
    for heading, family in zip(headings(groups), families, strict=True):
        lines += [f"## {cell(heading)}", "", *_family_table(family), ""]
    return _HEADER + "\n".join([*lines, _BASELINE_NOTE, ""])


def _tables_of(contribution: Contribution) -> list[ComparisonTable]:
    """As `ftbench table` shows them. Raises UserError for predictions that can't be read."""
    return comparison_tables(groups(newest_of_each(contribution.records)), contribution.store)


def _families(tables: Sequence[_Measured]) -> list[list[_Measured]]:
    """Tables that differ in the machine at most, by data and then by model."""
    families: dict[str, list[_Measured]] = {}
    for one in tables:
        families.setdefault(json.dumps(_shared_conditions(one), sort_keys=True), []).append(one)
    return sorted(families.values(), key=lambda family: _data_and_model(family[0]))


def _shared_conditions(one: _Measured) -> dict[str, object]:
    return {key: value for key, value in one.table.conditions.items() if key not in _OF_MACHINE}


def _data_and_model(one: _Measured) -> tuple[str, str]:
    data = next((record.data.name for record in one.records if record.data), "")
    return data, next((record.model.name for record in one.records if record.model.name), "")


def _contributions(contributions: Sequence[Contribution]) -> list[str]:
    rows = []
    for one in contributions:
        about, device = one.known_about, device_name(one.records[0])
        facts = [about.by, about.machine, device, about.date.isoformat(), about.revision[:10], about.licence]
        rows.append([_link(one), *map(cell, facts), str(len(one.records))])
    titles = ["contribution", "by", "machine", "device", "date", "revision", "licence", "runs"]
    notes = [f"- {_link(one)}: {cell(one.known_about.notes)}" for one in contributions if one.known_about.notes]
    return [*markdown_table(titles, rows, left=7), *(["", *notes] if notes else [])]


def _link(one: Contribution) -> str:
    return f"[{one.name}]({one.name}/{MANIFEST})"


def _overview(families: Sequence[Sequence[_Measured]]) -> list[str]:
    """Models and devices side by side: the reference strategy of each table, the same data below each other."""
    rows = []
    for one in (one for family in families for one in family):
        for entry, row in zip(one.table.entries, one.table.rows, strict=True):
            if entry.name == DEFAULT_REFERENCE:
                data, model = _data_and_model(one)
                rows.append(
                    [cell(data), cell(model), cell(one.device), _link(one.contribution), *_measured(one, entry, row)]
                )
    titles = ["data", "model", "device", "contribution", *_TITLES]
    return [f"## {DEFAULT_REFERENCE} on every model and device", "", *markdown_table(titles, rows, left=4)]


def _family_table(family: Sequence[_Measured]) -> list[str]:
    titles = ["strategy", "device", "contribution", *_TITLES]
    return markdown_table(titles, list(_rows(family)), left=3)


def _rows(family: Sequence[_Measured]) -> Iterator[list[str]]:
    """The machines of a strategy below each other, in the order of the strategies of the first that has it."""
    found: dict[str, list[tuple[_Measured, Entry, TableRow]]] = {}
    for one in family:
        for entry, row in zip(one.table.entries, one.table.rows, strict=True):
            found.setdefault(entry.name, []).append((one, entry, row))
    for name, cells in sorted(found.items(), key=lambda item: item[1][0][1].is_baseline):
        for number, (one, entry, row) in enumerate(cells):
            if number == 0 or not entry.runs_once:
                shown = cell(row.name) if number == 0 or row.name != name else ""
                yield [shown, cell(one.device), _link(one.contribution), *_measured(one, entry, row)]


def _measured(one: _Measured, entry: Entry, row: TableRow) -> list[str]:
    by_name = {column.name: text for column, text in zip(one.table.columns, row.cells, strict=True)}
    test, *costs = (by_name.get(name, "-") for name in _MEASURED)
    seeds = "-" if entry.runs_once else str(len(entry.records))
    return [seeds, *map(cell, [test if entry.ok else entry.failures[0].status, *costs])]
