"""What is logged to each tracker, read back from what the real library wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import groups
from harness.results.suites import suites_in
from harness.tracking.logged import _LONGEST, LoggedRun, LoggedSuite, _escaped
from harness.tracking.trackers import open_tracker
from tests.tracking.conftest import INSTALLED, SECRET, Tracked, run_tracked
from tests.tracking.readers import READERS, Found, Runs

RUNS = {"steady, seed 0", "steady, seed 1", "too fast, seed 0", "too fast, seed 1", "trivial, seed 0"}
SUITE = "my-suite"
CLASSES = [
    "C+", "C#", "C++", "<5", ">5", "\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}", "//<b>x", "a/../b", "..", ".", "a.b",
    "a_b", "a/b", "a b", "C_x2B_", "_x", "-", "Größe"
]  # fmt: skip
BASELINES = ["majority", "length_rule"]
ROWS = ["A+ (1.5%)", "A# (1/5%)"]
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


def _unescaped(part: str) -> str:
    return re.sub("_x([0-9A-F]+)_", lambda found: chr(int(found[1], 16)), part)


def test_classes_and_rows_of_any_name_have_figures_of_their_own(tmp_path: Path, proxy: list[bytes]) -> None:
    texts = [{"text": f"text {number} of {name}", "label": name} for name in CLASSES for number in range(10)]
    (tmp_path / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in texts))
    rows = [{"name": name, "strategy": strategy} for name, strategy in zip(ROWS, BASELINES, strict=True)]
    suite = {"model": {"name": "mini"}, "data": {"name": str(tmp_path / "texts.jsonl")}, "rows": rows}
    (tmp_path / "my suite.yaml").write_text(json.dumps(suite))
    code, printed = run_tracked(tmp_path, ",".join(INSTALLED))
    assert (code, "tracking with" in printed) == (0, False), printed
    for tracker in INSTALLED:
        found = READERS[tracker](tmp_path / "results" / "tracking" / tracker)
        figures = found[SUITE].figures
        assert {_unescaped(name.split("/")[0]) for name in figures if name.endswith("/test/accuracy")} == {*ROWS}
        for figures in (one.figures for name, one in found.items() if name != SUITE):
            names = {_unescaped(name.removeprefix("test/f1/")) for name in figures if name.startswith("test/f1/")}
            assert names == {*CLASSES}


def test_a_class_of_any_length_has_a_name_that_fits() -> None:
    ends = "ab"
    first, second = (_escaped("\N{THUMBS UP SIGN}" * 99 + end) for end in ends)
    assert first != second
    assert len(f"validation/f1/{first}") < 250


@given(st.text(), st.text())
@example("_+", "_x2B_")
@example("_x2F+", "_x2F_x2B_")
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (_escaped(one) == _escaped(other)) == (one == other)
    if len(_escaped(one)) <= _LONGEST:
        assert _unescaped(_escaped(one)) == one


def test_a_run_that_mlflow_refuses_has_failed_there(tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = open_tracker("mlflow", SUITE, tmp_path)
    refused = {"//no name": 1.0}
    run = LoggedRun("one", "id", "ok", None, {"seed": 0}, refused, {}, started=0.0, ended=1.0)
    for log, logged in ((tracker.log_run, run), (tracker.log_suite, LoggedSuite(refused))):
        with pytest.raises(Exception, match="Invalid value"):
            log(logged)
    experiment = client.get_experiment_by_name(SUITE)
    assert [one.info.status for one in client.search_runs([experiment.experiment_id])] == ["FAILED", "FAILED"]


def test_no_secret_is_logged(tracked: Tracked) -> None:
    files = [path for path in tracked.tracking.rglob("*") if path.is_file()]
    assert len(files) >= 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_nothing_leaves_the_machine(tracked: Tracked) -> None:
    assert tracked.requests == []


def test_a_suite_ends_as_it_does_untracked(tracked: Tracked) -> None:
    assert tracked.code == 1, "two runs diverge"
    assert "tracking" not in tracked.printed
