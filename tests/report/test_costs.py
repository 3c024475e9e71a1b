"""Energy and cost in tables: only where they were measured, or a price was given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.config.command_line import parse_price
from harness.errors import UserError
from harness.report.analysis.entry import device_hours
from harness.report.analysis.grouping import groups
from harness.report.files import summary
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results.record import Energy, Record
from harness.results.store import Store


@pytest.fixture
def two(run_here: Callable) -> list[Record]:
    return run_here(strategy=["head_only", "last_block"], data__size=60, training__epochs=0)


def _measured(record: Record, watt_hours: float, *parts: str) -> Record:
    shares = {part: watt_hours / len(parts) for part in parts}
    energy = Energy(watt_hours=watt_hours, parts=shares, per_thousand_predictions=0.5, measured_by="Zeus 0.16.0")
    return record.model_copy(update={"energy": energy, "prefix": None})


def _table(records: list[Record], store: Store, price: float | None = None) -> ComparisonTable:
    (table,) = comparison_tables(groups(records), store, price=price)
    return table


def _cells(table: ComparisonTable, name: str) -> list[tuple[str, bool]]:
    place = [column.name for column in table.columns].index(name)
    return [(row.cells[place], row.best[place]) for row in table.rows]


def test_energy_has_columns_only_where_it_was_measured(two: list[Record], store: Store) -> None:
    names = {column.name for column in _table(two, store).columns}
    assert not names & {"energy", "per 1000 predictions", "cost"}
    assert "energy.watt_hours" not in summary(two)
    table = _table([_measured(two[0], 12.3456, "GPU"), two[1]], store)
    assert _cells(table, "energy") == [("12.3 Wh", True), ("-", False)]
    assert _cells(table, "per 1000 predictions")[0][0] == "0.5 Wh"
    assert any("GPU, by their counters, read by Zeus 0.16.0" in note for note in table.notes)
    assert any(note.startswith("Energy not measured of last_block: CPU package") for note in table.notes)


def test_energies_of_other_parts_are_not_compared(two: list[Record], store: Store) -> None:
    alike = [_measured(two[0], 2.0, "GPU"), _measured(two[1], 1.0, "GPU")]
    assert [best for _, best in _cells(_table(alike, store), "energy")] == [False, True]
    other = [_measured(two[0], 2.0, "GPU", "CPU package"), _measured(two[1], 1.0, "GPU")]
    assert not any(best for _, best in _cells(_table(other, store), "energy"))


def test_a_run_pays_for_its_gpus_or_for_its_part_of_its_machines(two: list[Record]) -> None:
    record = two[0].model_copy(update={"seconds": two[0].seconds.model_copy(update={"total": 1800.0})})
    engine = record.engine.model_copy(update={"world_size": 4})
    config = record.config | {"engine": record.config["engine"] | {"nodes": 2, "processes": 2}}
    ranks = record.model_copy(update={"engine": engine, "config": config})
    assert device_hours(record) == 0.5
    assert device_hours(ranks) == 1
    on_gpus = ranks.model_copy(update={"environment": ranks.environment | {"device": "NVIDIA H100"}})
    assert device_hours(on_gpus) == 2
    beside = record.model_copy(update={"environment": record.environment | {"jobs": 2}})
    assert device_hours(beside) == 0.25


def test_costs_stand_beside_times_where_a_price_is_given(two: list[Record], store: Store) -> None:
    seconds = two[0].seconds
    runs = [
        record.model_copy(update={"seconds": seconds.model_copy(update={"total": total}), "prefix": None})
        for record, total in zip(two, (3600.0, 36.0), strict=True)
    ]
    table = _table(runs, store, price=2.5)
    assert _cells(table, "cost") == [("2.5", False), ("0.025", True)]
    assert any(note.endswith("all runs together 2.525.") for note in table.notes)


@pytest.mark.parametrize(("given", "price"), [("2.5/h", 2.5), ("2.5", 2.5), (" 3 /h", 3.0), ("0", 0.0), (None, None)])
def test_a_price_is_that_of_an_hour(given: str | None, price: float | None) -> None:
    assert parse_price(given) == price


@pytest.mark.parametrize("given", ["abc", "", "-1/h", "inf", "nan/h", "2.5/min", "$2", "2,5", "/h"])
def test_other_prices_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"expected a price for each hour and device such as 2\.5/h") as refused:
        parse_price(given)
    assert repr(given) in str(refused.value)
