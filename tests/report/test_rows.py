"""Which records make a row, which rows make a table, and which of them are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.suite import load_suite
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.analysis.scaling import scaling
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.notes.table import heading, headings
from harness.results.record import Record
from harness.results.store import Store

SMALL = {"data__size": 60, "training__epochs": 0}
DECLARED = "from harness import Strategy\n\nstrategy = Strategy()\n"


@pytest.fixture
def two(run_here: Callable) -> list[Record]:
    return run_here(strategy=["head_only", "last_block"], seed=[0, 1], **SMALL)


def _notes(records: list[Record], store: Store, reference: str | None = None) -> str:
    return " ".join(note for sheet in comparison_tables(groups(records), store, reference) for note in sheet.notes)


def test_code_of_one_name_is_a_row_for_each_content(run_here: Callable, store: Store, tmp_path: Path) -> None:
    """Another file of that name, and the same file before it was edited."""
    paths = [tmp_path / folder / "head_only.py" for folder in ("mine", "yours")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"# {path.parent.name}\n{DECLARED}")
    records = run_here(strategy=["head_only", *map(str, paths)], seed=[0, 1], **SMALL)
    (group,) = groups(records)
    entries = compare(group, store)
    assert [len(entry.records) for entry in entries] == [2, 2, 2]
    newest = max(records, key=lambda record: record.finished_at).strategy_source.sha256
    others = {record.strategy_source.sha256[:6] for record in records} - {newest[:6]}
    assert {entry.name for entry in entries} == {"head_only", *(f"head_only [code {code}]" for code in others)}
    paths[0].write_text(f"# edited\n{DECLARED}")
    edited = run_here(strategy=[str(paths[0])], seed=[0], **SMALL)
    (group,) = groups([record for record in [*records, *edited] if "mine" in record.strategy_source.origin])
    assert sorted(len(entry.records) for entry in compare(group, store)) == [1, 2]


def test_a_reference_without_a_good_run_is_told_and_by_default_another_is_taken(two: list[Record], store) -> None:
    lost = [
        one.model_copy(update={"status": "oom", "metrics": None}) if one.strategy == "last_block" else one
        for one in two
    ]
    assert "not compared: head_only, since no run of last_block ended well" in _notes(lost, store, "last_block").lower()
    (group,) = groups(lost)
    assert {entry.name for entry in compare(group, store) if entry.incomparable} == set()


def test_seeds_that_do_not_overlap_are_told(two: list[Record], store: Store) -> None:
    apart = [record for record in two if (record.strategy == "head_only") == (record.seed == 0)]
    assert "since it has no seed in common with last_block" in _notes(apart, store)


def test_the_same_row_of_other_data_is_another_message(run_here: Callable, store: Store, tmp_path: Path) -> None:
    """Two files cut alike have the same row numbers."""
    records = []
    for number in (1, 2):
        path = tmp_path / f"data{number}.csv"
        path.write_text("text,label\n" + "".join(f"text {number} {line},{'ab'[line % 2]}\n" for line in range(60)))
        strategy = "last_block" if number == 1 else "head_only"
        records += run_here(strategy=[strategy], data__name=str(path), training__epochs=0)
    entries = compare(Group(records), store)
    assert [entry.incomparable for entry in entries] == [None, "it was tested on other data than last_block"]


def test_settings_for_the_machines_sake_split_no_table(run_here: Callable, store: Store) -> None:
    options = {"training__checkpoint_steps": 5, "engine__timeout_seconds": 60, "features__limit_gigabytes": 1}
    records = run_here(strategy=["head_only"], **SMALL) + run_here(strategy=["last_block"], **SMALL, **options)
    assert len(groups(records)) == 1
    assert len(groups(records + run_here(strategy=["last_block"], **SMALL, optimizer__weight_decay=0.5))) == 2
    again = run_here(strategy=["head_only"], **SMALL, **options)
    (group,) = groups([*records, *again])
    assert [entry.records for entry in compare(group, store) if entry.name == "head_only"] == [again], "once a seed"


def test_tables_that_are_told_apart_by_little_tell_it(run_here: Callable, two: list[Record]) -> None:
    other = run_here(strategy=["last_block"], **SMALL, optimizer__weight_decay=0.5)
    first, second = headings(groups([*two, *other]))
    assert first.endswith("optimizer.weight_decay 0.1")
    assert second.endswith("optimizer.weight_decay 0.5")
    assert "weight_decay" not in headings(groups(two))[0]
    smaller = run_here(strategy=["last_block"], **SMALL, training__micro_batch_size=4)
    first, second = headings(groups([*two, *smaller]))
    assert first.endswith(" · no training.micro_batch_size")
    assert second.endswith(" · training.micro_batch_size 4")


def test_a_killed_run_leaves_the_data_in_the_heading(two: list[Record]) -> None:
    (whole,) = groups(two)
    (group,) = groups([*two[:3], two[3].model_copy(update={"status": "oom", "metrics": None, "data": None})])
    assert heading(group) == heading(whole)


def test_rows_of_a_suite_that_come_to_the_same_run_share_it(run_cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "alike.yaml"
    model = "model: {name: mini}\ndata: {name: synthetic, size: 60}\ntraining: {epochs: 0}\nstrategy: head_only\n"
    path.write_text(f"{model}rows: [{{name: by default}}, {{name: as asked, model: {{weights: pretrained}}}}]\n")
    assert len(load_suite(path, {}, []).rows) == 2
    code, out, _ = run_cli("run", "--config", str(path), "--cache", str(tmp_path / "cache"))
    assert code == 0
    assert "by default = as asked" in out
    assert run_cli("table", "--reference", "as asked")[0] == 0


def test_scaling_on_two_data_sets_is_two_tables(run_here: Callable) -> None:
    records = []
    for size in (400, 440):
        (one,) = run_here(strategy=["head_only"], data__size=size, training__epochs=1)
        other = one.model_copy(deep=True)
        other.config["engine"]["processes"] = other.engine.world_size = 2
        records += [one, other]
    tables = scaling(records)
    assert [len(rows) for _, rows in tables] == [2, 2]
    assert all("on mini: synthetic, 1 epochs, batch 8" in title for title, _ in tables)
