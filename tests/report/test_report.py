"""What a person reads: the table in every form, from records that a run wrote."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.analysis.scaling import scaling
from harness.report.files import comparison, summary, write_tables
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.report.table.rows import table_rows
from harness.report.table.scaling import scaling_markdown
from harness.results.record import Communication, Record
from harness.results.store import Store, newest_of_each
from tests.support.runs import run_command
from tests.support.tables import cells_of, printed


@pytest.fixture(scope="module")
def three_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    common = ["--model", "mini", "--data", "synthetic", "--epochs", "1", "--set", "data.size=400"]
    run_command(folder, "run", "--strategy", "head_only,last_block", *common)
    diverging = ["--strategy", "full", "--set", "optimizer.learning_rate=1e30"]
    run_command(folder, "run", *diverging, *common, exit_code=1)
    return folder / "results"


@pytest.fixture
def three(three_once: Path, store: Store) -> list[Record]:
    """Two runs that ended well and one that did not, in the store."""
    shutil.copytree(three_once, store.results)
    return sorted(store.all(), key=lambda record: ["head_only", "last_block", "full"].index(record.strategy))


def test_a_column_that_no_row_has_anything_for_stays_out_of_the_terminal(run_here: Callable, store: Store) -> None:
    rule, strategy = run_here(strategy=["length_rule", "head_only"], training__epochs=1)
    assert "trained" in printed([rule, strategy], 400, store)
    assert "trained" not in printed([rule], 400, store), "a rule has no parameters"


def test_the_best_of_each_column_is_marked(three: list[Record], store: Store) -> None:
    head_only, last_block = table_rows(compare(Group(three[:2]), store))
    trained = 1
    assert (head_only.best[trained], last_block.best[trained]) == (True, False)
    assert f"**{head_only.cells[trained]}**" in markdown(comparison_tables(groups(three[:2]), store))
    assert not any(table_rows(compare(Group(three[:1]), store))[0].best), "one row alone wins nothing"


def test_a_time_that_leaves_out_stored_work_is_marked_and_wins_nothing(run_here, store: Store) -> None:
    computed, reused = run_here(strategy=["last_block", "first_token"], training__epochs=0)

    def best(seconds_of_reused: float) -> tuple[bool, bool]:
        timed = zip((computed, reused), (10.0, seconds_of_reused), strict=True)
        of_both = [one.model_copy(update={"seconds": one.seconds.model_copy(update={"total": t})}) for one, t in timed]
        first, second = table_rows(compare(Group(of_both), store))
        assert (first.cells[-1], second.cells[-1]) == ("10.0 s", f"{seconds_of_reused} s*")
        return first.best[-1], second.best[-1]

    assert best(20.0) == (True, False)
    assert best(1.0) == (False, False), "with its share of the stored work it may be slower"
    assert "what another run had stored of its frozen part" in markdown(
        comparison_tables(groups([computed, reused]), store)
    )
    assert "had stored" not in markdown(comparison_tables(groups([computed]), store))


def test_a_failed_cell_shows_why_and_keeps_what_was_measured(three: list[Record], store: Store) -> None:
    failed = table_rows(compare(Group(three[2:]), store))[0]
    assert failed.failure.startswith("diverged: the loss of step")
    assert cells_of(three[2:], store)[0]["test loss"] == "-"
    assert not any(table_rows(compare(Group(three), store))[2].best)
    for text in (printed(three, 160, store), markdown(comparison_tables(groups(three), store))):
        assert failed.failure in text
    lines = summary(three)
    assert lines["status"].tolist() == ["ok", "ok", "diverged"]
    assert lines["metrics.test.total"].dropna().tolist() == [80, 80]


def test_the_table_says_what_ran_on_what_and_what_auto_chose(three: list[Record], store: Store) -> None:
    text = printed(three[:2], 160, store)
    assert "mini, pretrained weights · synthetic (280 / 40 / 80) · 1 epochs, batch 8, lr 0.0003" in text
    assert "Weights chosen by auto: at hand" in text
    assert "97%" in text
    metrics = three[0].metrics.test
    assert f"{100 * metrics.accuracy:.2f} [{100 * metrics.interval[0]:.1f}, {100 * metrics.interval[1]:.1f}]" in text


@pytest.mark.parametrize("width", [80, 120, 160])
def test_whatever_the_terminal_numbers_are_whole(three: list[Record], store: Store, width: int) -> None:
    text = printed(three[:2], width, store)
    table = text.split("\n\n")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert ("table.md has all columns" in text) == ("examples/s" not in table[1])
    for cells, record in zip(cells_of(three[:2], store), three, strict=False):
        assert record.strategy in text
        assert cells["trained"] in text
        assert cells["test % [95%]"] in text


def test_a_terminal_explains_the_columns_that_it_shows(three: list[Record], store: Store) -> None:
    narrow, wide = printed(three[:2], 100, store), printed(three[:2], 400, store)
    page = markdown(comparison_tables(groups(three[:2]), store))
    assert [" ECE " in text for text in (narrow, wide)] == [False, True]
    assert ["ROC AUC and ECE (" in text for text in (narrow, wide, page)] == [False, True, True]
    assert ["and MCC: on test" in text for text in (narrow, wide, page)] == [False, False, True]
    assert all("[95%]: Wilson" in text for text in (narrow, wide, page))


def test_runs_under_other_conditions_stand_in_another_table(three: list[Record], store: Store) -> None:
    assert len(comparison(comparison_tables(groups(three[:2]), store))) == 1
    assert len(comparison(comparison_tables(groups(three), store))) == 2
    assert markdown(comparison_tables(groups(three), store)).count("### ") == 2


def test_only_the_newest_record_of_a_configuration_is_shown(run_here, store: Store) -> None:
    (old,) = run_here(strategy=["head_only"], training__epochs=0)
    (new,) = run_here(strategy=["head_only"], training__epochs=0, force=True)
    assert newest_of_each(store.all()) == [new]
    write_tables(store)
    assert pd.read_csv(store.results / "summary.csv")["run_id"].tolist() == [new.run_id]
    (table,) = json.loads((store.results / "comparison.json").read_text())
    assert [row["run_ids"] for row in table["rows"]] == [[new.run_id]] != [[old.run_id]]


def _arranged(record: Record, ranks: int, threads: int, rate: float) -> Record:
    changed = record.model_copy(deep=True)
    changed.config["engine"]["processes"] = changed.engine.world_size = ranks
    changed.environment |= {"threads": threads, "cores": 8}
    changed.throughput.examples_per_second = rate
    return changed


def test_scaling_is_efficiency_per_core(run_here) -> None:
    (alone,) = run_here(strategy=["head_only"], training__epochs=1)
    one, two = _arranged(alone, ranks=1, threads=4, rate=100.0), _arranged(alone, ranks=2, threads=4, rate=150.0)
    sixteen = _arranged(alone, ranks=16, threads=1, rate=160.0)
    ((title, found),) = scaling([two, one, sixteen])
    assert "head_only" in title
    assert [(row.ranks, row.cores) for row in found] == [(1, 4), (2, 8), (16, 8)]
    assert [row.efficiency for row in found] == pytest.approx([1.0, 0.75, 0.8])
    assert "75%" in scaling_markdown([one, two])
    assert not scaling([one]), "one arrangement alone shows no scaling"
    assert [row.efficiency for row in scaling([two, sixteen])[0][1]] == [None, None]


def test_what_more_ranks_would_do_stands_below_what_a_few_did(run_here) -> None:
    (alone,) = run_here(strategy=["head_only"], training__epochs=2)
    one, two = _arranged(alone, ranks=1, threads=1, rate=100.0), _arranged(alone, ranks=2, threads=1, rate=150.0)
    assert "simulated" not in scaling_markdown([one, two]), "nothing is known of the exchange"
    two.communication = Communication(bytes_by_collective={"all_reduce": 1e6}, milliseconds_per_step=10.0)
    text = scaling_markdown([one, two])
    assert "| ddp | 100 (100%) |" in text, "one rank, as measured"
    assert "1,024 ranks" in text
    assert re.search(r"ddp, simulated: worth up to [\d,]+ ranks, .* if it stays at 8", text)


def test_commands_that_end_at_once_leave_tables_with_all_records(run_here, tmp_path: Path) -> None:
    """One reads the records before the others have written theirs, and would write its tables last."""
    (record,) = run_here(strategy=["head_only"], training__epochs=0)
    processes = multiprocessing.get_context("fork")
    has_read, others_are_done = processes.Event(), processes.Event()

    class SlowStore(Store):
        def all(self) -> list[Record]:
            found = super().all()
            has_read.set()
            others_are_done.wait(2)
            return found

    def end(seed: int) -> None:
        store = Store(tmp_path / "results")
        changes = {"run_id": f"seed-{seed}", "seed": seed, "config": record.config | {"seed": seed}}
        store.write(record.model_copy(update=changes))
        write_tables(store)

    slow = processes.Process(target=write_tables, args=(SlowStore(tmp_path / "results"),))
    others = [processes.Process(target=end, args=(seed,)) for seed in (1, 2, 3)]
    slow.start()
    assert has_read.wait(60)
    for other in others:
        other.start()
    for other in others:
        other.join()
    others_are_done.set()
    slow.join()
    assert [process.exitcode for process in (slow, *others)] == [0] * 4
    assert sorted(pd.read_csv(tmp_path / "results" / "summary.csv")["seed"]) == [0, 1, 2, 3]


def test_rows_of_a_suite_are_compared_with_each_other_whatever_their_models(run_cli: Callable, tmp_path: Path) -> None:
    config = tmp_path / "two_models.yaml"
    config.write_text(
        "{strategy: head_only, data: {name: synthetic, size: 300}, seed: [0, 1], training: {epochs: 2}, rows: ["
        "{name: as it is, model: {name: mini}}, {name: random mini, model: {name: mini, weights: random}},"
        "{name: small batches, model: {name: mini}, training: {batch_size: 4}}]}"
    )
    results = tmp_path / "results"
    for command in (("run", "--config", str(config)), ("table",)):
        code, out, _ = run_cli(*command, "--reference", "random mini")
        assert code == 0
        assert "two_models" in out
        (table,) = json.loads((results / "comparison.json").read_text())
        assert [row["name"] for row in table["rows"]] == ["as it is", "random mini", "small batches"]
        assert [row["seeds"] for row in table["rows"]] == [[0, 1]] * 3
        assert table["rows"][0]["evidence"]["reference"] == "random mini"
        assert table["conditions"].startswith("two_models · synthetic (")
    assert "| random mini | 2 |" in (results / "table.md").read_text()
