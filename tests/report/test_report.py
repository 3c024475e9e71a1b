"""What a person reads: the table in every form, from records that a run wrote."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.analysis.scaling import scaling
from harness.report.files import comparison, summary, write_tables
from harness.report.table.columns import columns
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.report.table.rows import table_rows
from harness.report.table.scaling import scaling_markdown
from harness.report.table.terminal import print_table
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.statistics import accuracy_interval, mcnemar, paired_difference


@pytest.fixture
def three(run_here) -> list[Record]:
    """Two runs that ended well and one that did not."""
    good = run_here(strategy=["head_only", "last_block"], training__epochs=1)
    (bad,) = run_here(strategy=["full"], training__epochs=1, optimizer__learning_rate=1e30)
    return [*good, bad]


def _printed(records: list[Record], width: int, store: Store) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, groups(records), store)
    return console.file.getvalue()


def _cells(records: list[Record], store: Store) -> list[dict[str, str]]:
    entries = compare(Group(records), store)
    titles = [column.title for column in columns(entries)]
    return [dict(zip(titles, row.cells, strict=True)) for row in table_rows(entries)]


def test_a_column_that_no_row_has_anything_for_stays_out_of_the_terminal(run_here: Callable, store: Store) -> None:
    rule, strategy = run_here(strategy=["length_rule", "head_only"], training__epochs=1)
    assert "trained" in _printed([rule, strategy], 400, store)
    assert "trained" not in _printed([rule], 400, store), "a rule has no parameters"


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
    assert _cells(three[2:], store)[0]["test loss"] == "-"
    assert not any(table_rows(compare(Group(three), store))[2].best)
    for text in (_printed(three, 160, store), markdown(comparison_tables(groups(three), store))):
        assert failed.failure in text
    lines = summary(three)
    assert lines["status"].tolist() == ["ok", "ok", "diverged"]
    assert lines["metrics.test.total"].dropna().tolist() == [80, 80]


def test_the_table_says_what_ran_on_what_and_what_auto_chose(three: list[Record], store: Store) -> None:
    text = _printed(three[:2], 160, store)
    assert "mini, pretrained weights · synthetic (280 / 40 / 80) · 1 epochs, batch 8, lr 0.0003" in text
    assert "Weights chosen by auto: at hand" in text
    assert "97%" in text
    metrics = three[0].metrics.test
    assert f"{100 * metrics.accuracy:.2f} [{100 * metrics.interval[0]:.1f}, {100 * metrics.interval[1]:.1f}]" in text


@pytest.mark.parametrize("width", [80, 120, 160])
def test_whatever_the_terminal_numbers_are_whole(three: list[Record], store: Store, width: int) -> None:
    text = _printed(three[:2], width, store)
    table = text.split("\n\n")[0].splitlines()[1:]
    assert max(map(len, table)) <= width
    assert ("table.md has all columns" in text) == ("examples/s" not in table[1])
    for cells, record in zip(_cells(three[:2], store), three, strict=False):
        assert record.strategy in text
        assert cells["trained"] in text
        assert cells["test % [95%]"] in text


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


# Several seeds


RATES = {"head_only": 0.6, "last_block": 0.95}
NEAR = {"head_only": 0.85, "last_block": 0.9}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, pd.DataFrame]:
    """A record and its predictions."""
    folder = tmp_path_factory.mktemp("once")
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 400, "training.epochs": 0}
    store = Store(folder / "results")
    suite = load_suite(None, {**options, "strategy": "head_only"}, [])
    commands.run_suite(Console(quiet=True), suite, store.results, folder / "cache", force=False)
    (record,) = store.all()
    return record, store.predictions(record.run_id)


@pytest.fixture
def suite(run_once: tuple[Record, pd.DataFrame], store: Store) -> list[Record]:
    """Three seeds of two strategies on 80 test messages: copies of a run, each with right answers of its own."""
    run, predictions = run_once
    random, records = np.random.default_rng(0), []
    for strategy, seed in itertools.product(RATES, range(3)):
        changes = {"strategy": strategy, "seed": seed}
        copy = run.model_copy(
            update={**changes, "run_id": f"{strategy}-{seed}", "config": {**run.config, **changes}}, deep=True
        )
        store.write_predictions(copy.run_id, predictions)
        records.append(_predicting(copy, store, random.random(80) < RATES[strategy]))
    return records


def _predicting(record: Record, store: Store, right: np.ndarray) -> Record:
    """The record as if its model had been right about these test messages."""
    frame = store.predictions(record.run_id)
    other = frame["label"].map(dict(zip(record.data.classes, record.data.classes[::-1], strict=True)))
    store.write_predictions(record.run_id, frame.assign(predicted=frame["label"].where(right, other)))
    test = record.metrics.test.model_copy(update={"accuracy": float(right.mean()), "correct": int(right.sum())})
    changed = record.model_copy(update={"metrics": record.metrics.model_copy(update={"test": test})})
    store.write(changed)
    return changed


def _right(records: list[Record], store: Store, strategy: str) -> np.ndarray:
    frames = [pd.read_csv(store.runs / one.run_id / "predictions.csv") for one in records if one.strategy == strategy]
    return np.stack([frame["label"] == frame["predicted"] for frame in frames])


def test_several_seeds_are_one_row_with_their_mean_and_its_interval(suite: list[Record], store: Store) -> None:
    cells = _cells(suite, store)
    assert len(cells) == 2
    for strategy, row in zip(("head_only", "last_block"), cells, strict=True):
        right = _right(suite, store, strategy)
        low, high = accuracy_interval(right)
        assert row["test % [95%]"] == f"{100 * right.mean():.2f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row["sd"] == f"{100 * right.mean(axis=1).std(ddof=1):.2f}"
        assert row["seeds"] == "3"
    text = _printed(suite, 160, store)
    assert "other seeds and other test messages" in text
    assert "means over seeds" in text
    assert "Wilson" not in text
    assert len(summary(suite)) == 6, "summary.csv keeps a line for each run"


def test_comparison_json_holds_the_evidence(suite: list[Record], store: Store) -> None:
    write_tables(store)
    (table,) = json.loads((store.results / "comparison.json").read_text())
    head_only, last_block = table["rows"]
    assert last_block["evidence"] is None, "it is the reference"
    assert last_block["seeds"] == [0, 1, 2]
    found = head_only["evidence"]
    expected = paired_difference(*(_right(suite, store, name) for name in ("head_only", "last_block")))
    assert (found["reference"], found["verdict"], found["seeds"]) == ("last_block", "worse", [0, 1, 2])
    assert [found["difference"], *found["interval"], found["p"], found["corrected_p"]] == pytest.approx(
        [float(x) for x in (expected.estimate, expected.low, expected.high, expected.p, expected.p)]
    )
    (turned,) = comparison(comparison_tables(groups(suite), store, "head_only"))
    assert turned["rows"][1]["evidence"]["verdict"] == "better"
    assert turned["rows"][1]["evidence"]["difference"] == pytest.approx(-found["difference"])


def test_what_would_settle_an_open_row_is_told(suite: list[Record], store: Store) -> None:
    alike = [_predicting(record, store, np.arange(80) % 10 > record.seed % 2) for record in suite]
    text = markdown(comparison_tables(groups(alike), store))
    assert "no evidence" in text
    assert "No difference at all was seen: head_only." in text
    random = np.random.default_rng(3)
    near = [_predicting(one, store, random.random(80) < NEAR[one.strategy]) for one in suite]
    evidence = compare(Group(near), store)[0].evidence
    assert evidence.verdict == "no evidence"
    assert evidence.seeds_needed > 3
    assert f"head_only {evidence.seeds_needed} seeds" in markdown(comparison_tables(groups(near), store))


@pytest.mark.parametrize("told", [{}, {"data": None}])  # what the kernel has killed tells no facts of its data
def test_a_failed_seed_is_counted_and_told(suite: list[Record], store: Store, told: dict[str, None]) -> None:
    lost = suite[1].model_copy(update={"status": "oom", "error": "Traceback\nout of memory", "metrics": None, **told})
    records = [suite[0], lost, *suite[2:]]
    head_only = compare(Group(records), store)[0]
    assert head_only.evidence.seeds == [0, 2]
    assert _cells(records, store)[0]["seeds"] == "2 of 3"
    for text in (_printed(records, 120, store), markdown(comparison_tables(groups(records), store))):
        assert "seed 1 oom: out of memory" in text
        assert "Not in the values: 1 of 3 seeds of head_only" in text
        assert "Compared on 2 seeds only, which ended well for both: head_only" in text
    (table,) = comparison(comparison_tables(groups(records), store))
    assert table["rows"][0]["failed_seeds"] == {1: "oom"}


def test_one_seed_is_judged_as_a_pair_of_models(suite: list[Record], store: Store) -> None:
    ones = [record for record in suite if record.seed == 0]
    evidence = compare(Group(ones), store)[0].evidence
    expected = mcnemar(*(_right(ones, store, name)[0] for name in ("head_only", "last_block")))
    assert (evidence.p, evidence.verdict, evidence.seeds_needed) == (pytest.approx(float(expected.p)), "worse", None)
    text = markdown(comparison_tables(groups(ones), store))
    assert "very pairs of trained models (McNemar's test), not on the strategies" in text
    assert "how results vary from seed to seed is not in it" in text


def test_rows_on_other_messages_are_not_compared(suite: list[Record], store: Store) -> None:
    for record in suite[:3]:
        frame = pd.read_csv(store.runs / record.run_id / "predictions.csv")
        store.write_predictions(record.run_id, frame.assign(index=frame["index"] + 1))
    head_only = compare(Group(suite), store)[0]
    assert head_only.evidence is None
    assert head_only.interval is not None
    assert "Not compared: head_only, since it was tested on other messages than last_block" in markdown(
        comparison_tables(groups(suite), store)
    )
    (store.runs / suite[0].run_id / "predictions.csv").unlink()
    assert f"{suite[0].run_id} has no predictions.csv" in markdown(comparison_tables(groups(suite), store))


def test_the_reference_must_be_among_the_rows(suite: list[Record], run_cli) -> None:
    code, out, _ = run_cli("table", "--reference", "head_only")
    assert (code, "vs head_only" in out) == (0, True)
    code, _, told = run_cli("table", "--reference", "full")
    assert (code, "expected one of head_only, last_block" in told) == (2, True)
    code, _, told = run_cli("run", "--strategy", "head_only", "--reference", "full", "--model", "mini")
    assert (code, "expected one of head_only" in told) == (2, True)


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
