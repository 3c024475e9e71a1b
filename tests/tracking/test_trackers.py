"""What is logged to each tracker, read back from what the real library wrote."""

from __future__ import annotations

import pytest

from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import groups
from harness.results.suites import suites_in
from tests.tracking.conftest import SECRET, Tracked
from tests.tracking.readers import READERS, Found, Runs

RUNS = {"steady, seed 0", "steady, seed 1", "too fast, seed 0", "too fast, seed 1", "trivial, seed 0"}
SUITE = "my-suite"
ALMOST = {"rel": 1e-6}  # event files hold float32


@pytest.fixture(scope="module", params=READERS)
def runs(request: pytest.FixtureRequest, tracked: Tracked) -> Runs:
    pytest.importorskip(request.param)
    return READERS[request.param](tracked.tracking / request.param)


@pytest.fixture
def steady(runs: Runs) -> Found:
    return runs["steady, seed 1"]


def test_there_is_one_run_for_each_run_and_one_for_the_suite(runs: Runs) -> None:
    assert set(runs) == {*RUNS, SUITE}


def test_the_configuration_is_logged_by_the_keys_of_the_record(steady: Found, tracked: Tracked) -> None:
    record = tracked.record("last_block", seed=1)
    assert steady.settings["run_id"] == record.run_id
    assert float(steady.settings["config.optimizer.learning_rate"]) == record.config["optimizer"]["learning_rate"]
    assert float(steady.settings["data.sizes.train"]) == record.ok_data.sizes["train"]
    assert steady.settings["model.weights"] == record.model.weights


def test_the_curves_are_those_of_the_record_step_by_step(steady: Found, tracked: Tracked) -> None:
    record = tracked.record("last_block", seed=1)
    written = tracked.store.curve(record.run_id)
    assert written is not None
    assert steady.curves["curve/loss"] == pytest.approx(
        dict(zip(written["step"], written["loss"], strict=True)), **ALMOST
    )
    assert record.epochs
    assert steady.curves["curve/validation_loss"] == pytest.approx(
        {10 * epoch: score.loss for epoch, score in enumerate(record.epochs.scores, start=1)}, **ALMOST
    ), "84 training texts: 10 steps an epoch"


def test_the_final_metrics_have_the_interval_of_the_record(steady: Found, tracked: Tracked) -> None:
    record = tracked.record("last_block", seed=1)
    test = record.ok_metrics.test
    named = {"accuracy": test.accuracy, "accuracy_low": test.interval[0], "accuracy_high": test.interval[1]}
    assert {name: steady.figures[f"test/{name}"] for name in named} == pytest.approx(named, **ALMOST)
    assert steady.figures["seconds/total"] == pytest.approx(record.seconds.total, **ALMOST)
    assert record.memory
    assert steady.figures["memory/peak_bytes"] == pytest.approx(record.memory.peak_bytes, **ALMOST)


def test_a_run_that_did_not_end_well_says_so(runs: Runs, steady: Found, tracked: Tracked) -> None:
    record = tracked.record("head_only")
    assert record.status == "diverged"
    ended = runs["too fast, seed 0"].ended
    assert "diverged" in ended
    assert record.reason in ended
    assert "ok" in steady.ended


def test_the_suite_has_the_rows_of_its_table_over_all_seeds(runs: Runs, tracked: Tracked) -> None:
    (table,) = groups(tracked.store.all(), suites_in(tracked.store.results))
    for entry in compare(table, tracked.store):
        if entry.ok:
            assert entry.interval
            logged = [runs[SUITE].figures[f"{entry.name}/test/accuracy{end}"] for end in ("", "_low", "_high")]
            assert logged == pytest.approx([entry.accuracy, *entry.interval], **ALMOST)


def test_the_tables_and_the_report_are_its_files(runs: Runs, tracked: Tracked) -> None:
    results = tracked.store.results
    assert runs[SUITE].files == {
        name: (results / name).read_bytes() for name in ("table.md", "summary.csv", "report.html")
    }


def test_no_secret_is_logged(tracked: Tracked) -> None:
    files = [path for path in tracked.tracking.rglob("*") if path.is_file()]
    assert len(files) >= 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_nothing_leaves_the_machine(tracked: Tracked) -> None:
    assert tracked.requests == []


def test_a_suite_ends_as_it_does_untracked(tracked: Tracked) -> None:
    assert tracked.code == 1, "two runs diverge"
    assert "tracking" not in tracked.printed
