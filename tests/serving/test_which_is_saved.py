"""Which run's classifier is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.experiment import runner
from harness.planning.plan import PlannedRun
from harness.results import saved_classifier
from harness.results.store import Store
from tests.serving.conftest import SIZE

SMALL = {"data__size": SIZE, "training__epochs": 1}


def test_the_best_on_the_validation_texts_is_kept(run_here: Callable, tmp_path: Path) -> None:
    records = run_here(strategy=["first_token", "last_block", "head_only", "tfidf"], seed=[0, 1], save=True, **SMALL)
    trained = [record for record in records if not record.strategy_source.is_baseline]
    validation = {record.run_id: record.metrics.validation for record in trained}
    best = max(validation, key=lambda run_id: (validation[run_id].accuracy, -validation[run_id].loss))
    assert saved_classifier.read(tmp_path / "results" / "classifier").run_id == best
    assert not list((tmp_path / "results" / "runs").glob("*/classifier")), "only the best takes room"


def test_the_metric_of_the_suite_chooses_the_classifier(
    run_here: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every class is found by the worst of three by accuracy."""
    found = {"head_only": (0.5, 0.9), "last_block": (0.9, 0.2), "first_token": (0.7, 0.3)}
    measured = runner.run

    def made_up(planned: PlannedRun, *rest: object) -> None:
        measured(planned, *rest)
        (*_, outcome, _joint) = rest
        accuracy, score = found[planned.name]
        outcome.metrics.validation = outcome.metrics.validation.model_copy(
            update={"accuracy": accuracy, "macro_f1": score}
        )

    monkeypatch.setattr(runner, "run", made_up)
    for metric, best in (("accuracy", "last_block"), ("macro_f1", "head_only")):
        run_here(strategy=list(found), save=True, metric=metric, **SMALL)
        assert saved_classifier.read(tmp_path / "results" / "classifier").strategy == best


def test_a_run_that_was_done_before_is_kept_too(run_here: Callable, tmp_path: Path) -> None:
    before = run_here(strategy=["last_block", "first_token"], **SMALL)
    assert not (tmp_path / "results" / "classifier").exists()
    run_here(strategy=["last_block", "first_token"], save=True, **SMALL)
    about, store = saved_classifier.read(tmp_path / "results" / "classifier"), Store(tmp_path / "results")
    again = {record.run_id for record in before if store.read(record.run_id).finished_at != record.finished_at}
    assert again == {about.run_id}, "no other run was done twice"
    run_here(strategy=["last_block", "first_token"], save=True, **SMALL)
    assert store.read(about.run_id).finished_at == max(record.finished_at for record in store.all())
    assert saved_classifier.read(tmp_path / "results" / "classifier") == about


def test_of_equals_the_first_is_kept(run_here: Callable, tmp_path: Path) -> None:
    first, second = run_here(strategy=["last_block", "first_token"], readout="last", save=True, **SMALL)
    assert first.metrics == second.metrics
    assert saved_classifier.read(tmp_path / "results" / "classifier").run_id == first.run_id


def test_a_damaged_classifier_makes_room_for_a_new_one(run_here: Callable, trained: Path) -> None:
    about = saved_classifier.read(trained)
    (trained / "classifier.json").write_text("{}")
    run_here(strategy=["last_block"], save=True, **SMALL)
    assert saved_classifier.read(trained) == about


def test_where_no_run_ended_well_the_classifier_before_stays(run_here: Callable, trained: Path) -> None:
    about = saved_classifier.read(trained)
    (record,) = run_here(strategy=["full"], save=True, optimizer__learning_rate=1e30, **SMALL)
    assert record.status == "diverged"
    assert saved_classifier.read(trained) == about


def test_a_classifier_that_cannot_be_written_is_a_failed_run(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], **SMALL)
    (tmp_path / "results" / "runs" / record.run_id / "classifier").write_text("in the way")
    run_here(strategy=["last_block", "head_only"], save=True, **SMALL)
    failed, finished = sorted(Store(tmp_path / "results").all(), key=lambda one: one.status)
    assert (failed.run_id, failed.status, finished.status) == (record.run_id, "failed", "ok")
    assert "can't be written" in failed.error
    assert saved_classifier.read(tmp_path / "results" / "classifier").run_id == finished.run_id


def test_baselines_alone_leave_nothing_to_keep(refused: Callable) -> None:
    assert "SAVE=1" in refused("--save", "--strategy", "tfidf,majority")
