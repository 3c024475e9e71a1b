"""What tables say of costs that were measured with other runs beside them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.report.analysis.grouping import groups
from harness.report.analysis.scaling import configuration_but_engine
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results.record import Record, Throughput
from harness.results.store import Store

COSTS = ("examples/s", "real tok./s", "memory", "time")


@pytest.fixture
def two(run_here: Callable) -> list[Record]:
    rates = Throughput(examples_per_second=9.0, real_tokens_per_second=90.0, padded_tokens_per_second=95.0)
    ran = run_here(strategy=["head_only", "last_block"], data__size=60, training__epochs=0)
    return [record.model_copy(update={"throughput": rates, "prefix": None}) for record in ran]


def _beside(record: Record, jobs: int) -> Record:
    return record.model_copy(update={"environment": record.environment | {"jobs": jobs}})


def _table(records: list[Record], store: Store) -> ComparisonTable:
    (table,) = comparison_tables(groups(records), store)
    return table


def _with_a_best(table: ComparisonTable) -> set[str]:
    marked = {column.name for row in table.rows for column, best in zip(table.columns, row.best, strict=True) if best}
    return marked & set(COSTS)


def _notes(table: ComparisonTable) -> list[str]:
    return [note for note in table.notes if "side by side" in note]


def test_runs_with_as_many_neighbours_are_compared(two: list[Record], store: Store) -> None:
    alone = _table(two, store)
    assert _with_a_best(alone) == set(COSTS)
    assert not _notes(alone)
    together = _table([_beside(record, 4) for record in two], store)
    assert _with_a_best(together) == set(COSTS)
    assert _notes(together) == ["4 runs side by side: speed, memory and time are those of a run beside others."]
    assert "takes least time" in " ".join(together.in_words) or "For cost" in " ".join(together.in_words)


def test_costs_of_other_neighbours_are_not_compared(two: list[Record], store: Store) -> None:
    mixed = _table([two[0], _beside(two[1], 4)], store)
    assert not _with_a_best(mixed)
    assert any(row.best[column] for row in mixed.rows for column in range(len(mixed.columns))), "of other columns"
    assert _notes(mixed) == [
        "One at a time: head_only; 4 side by side: last_block. Speed, memory and time are only compared between runs "
        "that had as many beside them: no best is marked."
    ]
    assert "time" not in " ".join(mixed.in_words)
    assert "cost" not in " ".join(mixed.in_words)


def test_seeds_with_other_neighbours_are_not_compared_either(two: list[Record], store: Store) -> None:
    other = two[1].model_copy(update={"seed": 1, "environment": two[1].environment | {"jobs": 2}})
    assert not _with_a_best(_table([*two, other], store))


def test_ranks_are_not_compared_with_a_run_beside_others(two: list[Record]) -> None:
    assert configuration_but_engine(two[0]) == configuration_but_engine(_beside(two[0], 1))
    assert configuration_but_engine(two[0]) != configuration_but_engine(_beside(two[0], 2))


def test_older_records_ran_alone(two: list[Record]) -> None:
    older = {key: value for key, value in two[0].environment.items() if key != "jobs"}
    assert two[0].model_copy(update={"environment": older}).jobs == 1
