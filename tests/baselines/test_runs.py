"""Baselines run and are recorded as strategies are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

import strategies
from harness import baselines
from harness.report.analysis.grouping import groups
from harness.report.files import comparison
from harness.report.table.comparison_table import comparison_tables
from harness.results.record import SCHEMA_FILE, Record
from harness.results.store import Store

ALL = list(baselines.NAMES)
_SMALL = {"data__size": 60, "training__epochs": 0}
_DIFFERS = {"run_id", "finished_at", "seconds", "memory", "environment"}


def _by_name(records: list[Record]) -> dict[str, Record]:
    return {record.strategy: record for record in records}


def test_a_baseline_leaves_a_record_of_what_it_depends_on(run_here: Callable, tmp_path: Path) -> None:
    records = _by_name(run_here(strategy=["head_only", *ALL], seed=[3, 4], **_SMALL))
    assert list(records) == ["head_only", *ALL]
    for name in ALL:
        record = records[name]
        folder = tmp_path / "results" / "runs" / record.run_id
        stored = json.loads((folder / "record.json").read_text())
        jsonschema.validate(stored, json.loads(SCHEMA_FILE.read_text()))
        assert (record.status, record.seed, record.engine.world_size) == ("ok", 0, 1)
        assert set(record.config) == {"strategy", *(key.split(".")[0] for key in baselines.load(name).uses)}
        assert set(record.seconds.model_dump(exclude_none=True)) == {"prepare", "train", "evaluate", "total"}
        frame = pd.read_csv(folder / "predictions.csv")
        assert (frame["label"] == frame["predicted"]).sum() == record.metrics.test.correct
        assert frame["probability_spam"].between(0, 1).all()
    depends = {name: (records[name].model.name, records[name].precision) for name in ALL}
    assert depends["tfidf"] == depends["majority"] == (None, None)
    assert depends["length_rule"] == ("mini", None)
    assert depends["zero_shot"] == ("mini", "fp32")
    trained = {name: records[name].model.trainable_parameters for name in ALL}
    assert (trained["majority"], trained["zero_shot"]) == (None, 0)
    assert trained["tfidf"] > 100


@pytest.mark.long
def test_a_baseline_runs_again_only_where_what_it_depends_on_changes(run_here: Callable, store: Store) -> None:
    first = run_here(strategy=["head_only", *ALL], seed=[0, 1], **_SMALL)
    assert len(first) == 2 + len(ALL), "once, not once a seed"
    assert run_here(strategy=["head_only", *ALL], seed=[0, 1], **_SMALL) == []
    other_rate = run_here(strategy=["head_only", *ALL], optimizer__learning_rate=1e-2, **_SMALL)
    assert [record.strategy for record in other_rate] == ["head_only"]
    other_precision = run_here(strategy=ALL, precision="fp64", **_SMALL)
    assert [record.strategy for record in other_precision] == ["zero_shot"]
    other_data = run_here(strategy=ALL, **{**_SMALL, "data__size": 50})
    assert [record.strategy for record in other_data] == ALL

    tables = comparison(comparison_tables(groups(store.all()), store))
    seen = [[row["name"] for row in table["rows"]] for table in tables]
    assert seen[:2] == [["head_only", *ALL]] * 2, "at the end of each table they belong to"
    assert sorted(seen[2:]) == [ALL, ALL], "of the other precision and the other data"


@pytest.mark.long
def test_two_ranks_leave_the_same_records(run_here: Callable, ftbench: Callable, tmp_path: Path) -> None:
    alone = _by_name(run_here(strategy=ALL, results="alone", **_SMALL))
    options = ["--model", "mini", "--data", "synthetic", "--set", "data.size=60", "--epochs", "0", "--nproc", "2"]
    done = ftbench("run", "--strategy", ",".join([*ALL, "head_only"]), *options)
    assert done.returncode == 0, done.stderr
    together = _by_name(Store(tmp_path / "results").all())
    assert together.pop("head_only").engine.world_size == 2
    for name, record in alone.items():
        assert together[name].model_dump(exclude=_DIFFERS) == record.model_dump(exclude=_DIFFERS)


def test_a_baseline_that_fails_is_a_record_and_the_suite_goes_on(
    run_here: Callable, store: Store, tmp_path: Path
) -> None:
    """More classes than a question in mini's context can name."""
    labels = [f"a class with the number {number}" for number in range(40)]
    pd.DataFrame({"text": [f"text {n}" for n in range(80)], "label": labels * 2}).to_csv(tmp_path / "many.csv")
    failed, finished = run_here(strategy=["zero_shot", "majority"], data__name=str(tmp_path / "many.csv"))
    assert (failed.status, finished.status) == ("failed", "ok")
    assert "40 classes leaves no room" in failed.error
    (table,) = comparison(comparison_tables(groups([failed, finished]), store))
    failures = {row["name"]: list(row["failed_seeds"].values()) for row in table["rows"]}
    assert failures == {"majority": [], "zero_shot": ["failed"]}


def test_all_means_the_strategies_and_the_baselines(run_cli: Callable, tmp_path: Path) -> None:
    options = [
        "--model",
        "mini",
        "--weights",
        "random",
        "--data",
        "synthetic",
        "--set",
        "data.size=20",
        "--epochs",
        "0",
    ]
    code, out, told = run_cli("run", "--strategy", "all", *options, "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    shown = [line.split()[1] for line in lines if line.startswith("| ")]
    assert shown == ["strategy", "---", *strategies.ALL, *ALL]
    assert "With random weights zero_shot knows no language" in out


def test_names(refused: Callable, run_cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(ALL) & set(strategies.built_in_names())
    assert "did you mean 'tfidf'?" in refused("--strategy", "tf_idf")
    assert "'tfidf' is given twice" in refused("--strategy", "tfidf,tfidf")
    monkeypatch.setattr(strategies, "names", lambda: ["tfidf"])
    assert "plug-in has the name of the baseline 'tfidf'" in refused("--strategy", "tfidf")


def test_baselines_are_listed(
    run_cli: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from harness import cli

    monkeypatch.setattr("sys.argv", ["ftbench", "list", "--model", "mini"])
    with pytest.raises(SystemExit):
        cli.main()
    _, section = capsys.readouterr().out.split("Baselines")
    for name in ALL:
        assert name in section
