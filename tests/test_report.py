"""What a person reads: the table in every form, from records that a run wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.records import Record, Store, newest_of_each
from harness.report.files import comparison, markdown, summary, write_tables
from harness.report.table import print_table, rows


@pytest.fixture
def three(run_here) -> list[Record]:
    """Two runs that ended well and one that did not."""
    good = run_here(strategy=["head_only", "last_block"], training__epochs=1)
    (bad,) = run_here(strategy=["full"], training__epochs=1, optimizer__learning_rate=1e30)
    return [*good, bad]


def _printed(records: list[Record], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, records)
    return console.file.getvalue()


def test_the_best_of_each_column_is_marked(three: list[Record]) -> None:
    head_only, last_block = rows(three[:2])
    trained, time = 0, -1
    assert (head_only.best[trained], last_block.best[trained]) == (True, False)
    assert head_only.best[time] != last_block.best[time]
    assert f"**{head_only.cells[trained]}**" in markdown(three[:2])
    assert not any(rows(three[:1])[0].best), "one row alone wins nothing"


def test_a_time_that_leaves_out_stored_work_is_marked_and_wins_nothing(run_here) -> None:
    computed, reused = run_here(strategy=["last_block"], seed=[0, 1], training__epochs=0)
    first, second = rows([computed, reused])
    assert not first.cells[-1].endswith("*")
    assert second.cells[-1].endswith("s*")
    assert (first.best[-1], second.best[-1]) == (True, False)
    assert "whose features another run had stored" in markdown([computed, reused])
    assert "had stored" not in markdown([computed])


def test_a_failed_cell_shows_why_and_keeps_what_was_measured(three: list[Record]) -> None:
    failed = rows(three)[2]
    assert failed.failure.startswith("diverged: the loss of step")
    assert failed.cells[1] == "-"
    assert not any(failed.best)
    for text in (_printed(three, 160), markdown(three)):
        assert failed.failure in text
    lines = summary(three)
    assert lines["status"].tolist() == ["ok", "ok", "diverged"]
    assert lines["metrics.test.total"].dropna().tolist() == [80, 80]


def test_the_table_says_what_ran_on_what_and_what_auto_chose(three: list[Record]) -> None:
    text = _printed(three[:2], 160)
    assert "mini, pretrained weights · synthetic (280 / 40 / 80) · 1 epochs, batch 8, lr 0.001" in text
    assert "Weights chosen by auto: at hand" in text
    assert "97%" in text
    metrics = three[0].metrics.test
    assert f"{100 * metrics.accuracy:.2f} [{100 * metrics.interval[0]:.1f}, {100 * metrics.interval[1]:.1f}]" in text


def test_a_narrow_terminal_gets_whole_numbers(three: list[Record]) -> None:
    text = _printed(three[:2], 80)
    assert "table.md has all columns" in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"{three[1].model.trainable_parameters:,}" in text


def test_runs_under_other_conditions_stand_in_another_table(three: list[Record]) -> None:
    assert len(comparison(three[:2])) == 1
    assert len(comparison(three)) == 2
    assert markdown(three).count("### ") == 2


def test_only_the_newest_record_of_a_configuration_is_shown(run_here, tmp_path: Path) -> None:
    (old,) = run_here(strategy=["head_only"], training__epochs=0)
    (new,) = run_here(strategy=["head_only"], training__epochs=0, force=True)
    store = Store(tmp_path / "results")
    assert newest_of_each(store.all()) == [new]
    write_tables(store.results, store.all())
    assert pd.read_csv(store.results / "summary.csv")["run_id"].tolist() == [new.run_id]
    (table,) = json.loads((store.results / "comparison.json").read_text())
    assert [row["run_id"] for row in table["rows"]] == [new.run_id] != [old.run_id]
