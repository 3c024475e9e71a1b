"""A run and its record: what is written, what is repeated, and what happens when something goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from harness.results.record import SCHEMA_FILE, json_schema
from harness.results.store import Store
from harness.statistics import wilson_interval
from tests.support.runs import curve_of

_DIFFERS = {"run_id", "finished_at", "seconds", "memory", "throughput", "step_milliseconds", "prefix"}


def test_the_schema_in_the_repo_is_that_of_the_code() -> None:
    assert SCHEMA_FILE.read_text() == json_schema(), "python -m tools.record_reference"


def test_a_record_says_what_ran_and_follows_its_schema(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], training__epochs=2)
    path = tmp_path / "results" / "runs" / record.run_id / "record.json"
    stored = json.loads(path.read_text())
    jsonschema.validate(stored, json.loads(SCHEMA_FILE.read_text()))
    assert record.status == "ok"
    assert record.choices["weights"].startswith("auto:")
    assert record.data.sizes == {"train": 70, "validation": 10, "test": 20}
    assert record.model.trainable_parameters == 198_786
    assert record.prefix.boundary == "block.3"
    assert (record.prefix.computed_tokens > 0, record.prefix.reused_tokens) == (True, 0)
    assert record.seconds.total == pytest.approx(
        record.seconds.prepare + record.seconds.features + record.seconds.train + record.seconds.evaluate
    )
    assert set(record.memory.by_rank[0].phases) == {"prepare", "features", "train", "evaluate"}
    assert record.memory.peak_bytes >= record.memory.by_rank[0].at_start > 1e7
    files = {"runs", "events.log", "table.md", "table.tex", "summary.csv", "comparison.json"}
    assert {path.name for path in (tmp_path / "results").glob("[!.]*")} == files


def test_padding_is_never_counted_as_real(run_here: Callable) -> None:
    options = {"strategy": ["last_block"], "training__epochs": 1, "data__size": 200}
    (packed,), (padded,), (plain,) = (run_here(**options, **more) for more in ({}, {"pad_to": 60}, {"plain": True}))
    for record, share in ((packed, 1), (padded, 31 / 60), (plain, 31 / 38)):
        rates = record.throughput
        assert rates.real_tokens_per_second / rates.padded_tokens_per_second == pytest.approx(share, rel=0.05)


def test_predictions_reproduce_the_metrics(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["head_only"], training__epochs=1)
    frame = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    assert list(frame.columns) == ["index", "label", "predicted", "probability_ham", "probability_spam"]
    assert len(set(frame["index"])) == len(frame) == record.metrics.test.total
    shares = frame[["probability_ham", "probability_spam"]].to_numpy()
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (frame["predicted"] == np.array(["ham", "spam"])[shares.argmax(1)]).all()
    correct = int((frame["label"] == frame["predicted"]).sum())
    assert record.metrics.test.correct == correct
    assert record.metrics.test.interval == pytest.approx(wilson_interval(correct, len(frame)))
    assert record.metrics.test.loss == pytest.approx(log_loss(frame["label"] == "spam", shares[:, 1]), abs=1e-9)


def test_the_same_seed_twice_gives_the_same_record(run_here: Callable, tmp_path: Path) -> None:
    options = {"strategy": ["last_block"], "training__epochs": 2, "data__size": 120}
    (first,) = run_here(**options)
    assert run_here(**options) == []
    (again,) = run_here(**options, force=True)
    assert first.run_id != again.run_id
    assert first.model_dump(exclude=_DIFFERS) == again.model_dump(exclude=_DIFFERS)
    files = [tmp_path / "results" / "runs" / record.run_id for record in (first, again)]
    for name in ("predictions.csv", "losses.csv"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
    (other,) = run_here(**options, seed=[1])
    assert other.metrics.test.loss != first.metrics.test.loss


def test_the_curve_tells_how_much_of_each_batch_was_right(run_here: Callable, tmp_path: Path) -> None:
    options = {"strategy": ["last_block"], "training__epochs": 2, "data__size": 160}
    (record,) = run_here(**options, optimizer__learning_rate=1e-12)
    curve = curve_of(tmp_path / "results", record)
    assert curve["step"].tolist() == list(range(1, 29))
    last_epoch = curve["accuracy"][14:]
    assert last_epoch.mean() == pytest.approx(record.metrics.train.accuracy)  # nothing was learnt meanwhile


def test_a_finished_run_is_not_run_again_but_shown(run_cli: Callable, tmp_path: Path) -> None:
    arguments = ["run", "--model", "mini", "--data", "synthetic", "--epochs", "0", "--set", "data.size=50"]
    arguments += ["--cache", str(tmp_path / "cache")]
    assert "not run again" not in run_cli(*arguments)[1]
    store = Store(tmp_path / "results")
    (record,) = store.all()
    code, out, _ = run_cli(*arguments)
    assert code == 0
    assert "done before, not run again (FORCE=1 does)" in out
    assert f"{100 * record.metrics.test.accuracy:.2f} [" in out, "its row of the table"
    assert store.all() == [record]


def test_a_readout_that_is_overridden_is_recorded_and_shown(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], readout="mean", training__epochs=0)
    assert record.readout == "mean"
    assert "last_block (mean)" in (tmp_path / "results" / "table.md").read_text()


def test_variables_of_a_cluster_are_no_group_that_was_asked_for(run_here: Callable, monkeypatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    (record,) = run_here(strategy=["head_only"], training__epochs=0)
    assert (record.status, record.engine.world_size) == ("ok", 1)


def test_no_secret_of_the_environment_is_recorded(run_here: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    (record,) = run_here(strategy=["head_only"], training__epochs=0)
    assert "hf_very_secret" not in (tmp_path / "results" / "runs" / record.run_id / "record.json").read_text()
