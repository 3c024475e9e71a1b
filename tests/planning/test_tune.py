"""TUNE=lr: the validation texts choose each strategy's learning rate, and the table shows it beside the common one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.errors import UserError
from harness.planning.sweep import GRID, SWEPT_SEEDS
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import groups
from harness.report.analysis.sweep import best_rates, curves
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.report.table.sweep import sweep_notes
from harness.results.record import Record
from harness.results.store import Store, newest_of_each

SUITE = {
    "strategy": ["head_only", "last_block", "majority"],
    "model.name": "mini",
    "data.name": "synthetic",
    "data.size": 60,
    "training.epochs": 1,
    "seed": list(range(SWEPT_SEEDS + 1)),
    "tune": "lr",
}


def _run(folder: Path) -> list[Record]:
    store = Store(folder / "results")
    commands.run_suite(Console(quiet=True), load_suite(None, SUITE, []), store.results, folder / "cache", force=False)
    return store.all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def swept(folder: Path) -> list[Record]:
    return _run(folder)


def _rate(record: Record) -> float | None:
    return record.config.get("optimizer", {}).get("learning_rate")  # a baseline has none


def test_validation_chooses_and_every_seed_runs_at_both_rates(swept: list[Record], folder: Path) -> None:
    store = Store(folder / "results")
    table = pd.DataFrame(
        {
            "strategy": record.strategy,
            "rate": _rate(record),
            "seed": record.seed,
            "accuracy": record.metrics.validation.accuracy,
            "loss": -record.metrics.validation.loss,
        }
        for record in swept
        if not record.strategy_source.is_baseline
    )
    (common,) = {record.sweep_around for record in swept} - {None}
    means = table[table["seed"] < SWEPT_SEEDS].groupby(["strategy", "rate"])[["accuracy", "loss"]].mean().round(12)
    (group,) = groups(store.all())
    entries = {entry.name: entry for entry in compare(group, store)}
    for strategy in ("head_only", "last_block"):
        assert len(means.loc[strategy]) == len(GRID)
        best = means.loc[strategy].sort_values(["accuracy", "loss"]).index[-1]
        assert best_rates(swept)[strategy] == best
        assert len(entries[strategy].records) == SWEPT_SEEDS + 1
        assert {_rate(record) for record in entries[strategy].records} == {common}
        if best != common:
            assert len(entries[f"{strategy} (lr {best:g})"].records) == SWEPT_SEEDS + 1
    assert len(entries) <= 5, "the other rates are in the curve only"
    told = markdown(comparison_tables(groups(store.all()), store))
    assert "never by test" in told
    assert told.count("### ") == 1, "one table"
    (table,) = json.loads((store.results / "comparison.json").read_text())
    assert [curve["name"] for curve in table["learning_rates"]] == ["head_only", "last_block"]


def test_a_strategy_by_path_runs_at_its_own_rate_too(tmp_path: Path) -> None:
    """And DeepSpeed, in one process, joins a group for the sweep and another one for the rest."""
    path = tmp_path / "mine.py"
    path.write_text("from harness import Strategy\nstrategy = Strategy()\n")
    seeds = SWEPT_SEEDS + 1
    asked = {**SUITE, "strategy": [str(path)], "engine.name": "deepspeed", "seed": list(range(seeds))}
    asked |= {"optimizer.learning_rate": 1.2345e-5, "data.size": 60}
    store = Store(tmp_path / "results")
    commands.run_suite(Console(quiet=True), load_suite(None, asked, []), store.results, tmp_path / "cache", force=False)
    assert {record.status for record in store.all()} == {"ok"}
    rates = [_rate(record) for record in store.all()]
    assert len(set(rates)) == len(GRID), "the common rate is one of the grid, whatever its digits"
    own = best_rates(store.all())[str(path)]
    assert own != 1.2345e-5
    assert rates.count(own) == rates.count(1.2345e-5) == seeds


def test_the_test_texts_have_no_say(swept: list[Record]) -> None:
    turned = []
    for record in swept:
        test = record.metrics.test.model_copy(update={"accuracy": 1 - record.metrics.test.accuracy})
        turned.append(record.model_copy(update={"metrics": record.metrics.model_copy(update={"test": test})}))
    assert best_rates(turned) == best_rates(swept)


def test_another_metric_chooses_by_its_own_values_and_says_so(swept: list[Record]) -> None:
    """Made up: the lowest rate finds every class, the others but one."""
    lowest = min(_rate(record) or 1.0 for record in swept)

    def with_mcc(record: Record) -> Record:
        validation = record.metrics.validation.model_copy(update={"mcc": float(_rate(record) == lowest)})
        return record.model_copy(update={"metrics": record.metrics.model_copy(update={"validation": validation})})

    changed = [with_mcc(record) for record in swept]
    assert best_rates(changed) == best_rates(swept), "accuracy is as it was"
    assert best_rates(changed, "mcc") == dict.fromkeys(["head_only", "last_block"], lowest)
    notes = " ".join(sweep_notes(curves(changed, "mcc")))
    assert "by MCC on the validation texts" in notes
    older = changed[0].metrics.validation.model_copy(update={"mcc": None})
    changed[0].metrics.validation = older
    with pytest.raises(UserError, match=f"METRIC=mcc: the record {changed[0].run_id} lacks it"):
        best_rates(changed, "mcc")


def test_a_rate_that_diverged_is_not_chosen_and_hides_nothing(swept: list[Record]) -> None:
    best = best_rates(swept)["head_only"]
    lost = [
        record.model_copy(update={"status": "diverged"})
        if (record.strategy, _rate(record)) == ("head_only", best)
        else record
        for record in swept
    ]
    assert best_rates(lost)["head_only"] != best


def test_a_rate_at_which_one_seed_failed_is_left_out_and_told(swept: list[Record], folder: Path) -> None:
    best = best_rates(swept)["head_only"]
    other = next(rate for rate in map(_rate, swept) if rate not in (None, best))
    seeds = {best: 0, other: 1}
    lost = [
        record.model_copy(update={"status": "diverged"})
        if record.strategy == "head_only" and seeds.get(_rate(record)) == record.seed
        else record
        for record in swept
    ]
    assert best_rates(lost)["head_only"] not in seeds
    assert best_rates(lost)["last_block"] == best_rates(swept)["last_block"]
    (told,) = (note for note in sweep_notes(curves(lost)) if "did not end well" in note)
    assert told.startswith("rates of head_only at which")
    assert all(f"{rate:g}" in told for rate in seeds)


def test_a_sweep_of_which_nothing_ended_well_has_a_table(swept: list[Record], tmp_path: Path) -> None:
    point = next(record for record in swept if record.sweep_around)
    stopped = point.model_copy(update={"status": "interrupted", "error": "interrupted", "metrics": None})
    (group,) = groups([stopped])
    (entry,) = compare(group, Store(tmp_path))
    assert entry.records == [stopped]


def test_ordinary_runs_at_a_rate_of_the_grid_are_no_points_of_the_sweep(tmp_path: Path) -> None:
    """One before the sweep would be missing in its curve; one after it would be missing among its own seeds."""
    store, common, of_grid, seeds = Store(tmp_path / "results"), 3e-4, 3e-3, [0, 1]

    def run(rate: float, **options: object) -> None:
        asked = SUITE | {"strategy": ["head_only"], "seed": seeds, "tune": None, "optimizer.learning_rate": rate}
        suite = load_suite(None, asked | options, [])
        commands.run_suite(Console(quiet=True), suite, store.results, tmp_path / "cache", force=False)

    run(of_grid, seed=[0])
    run(common, tune="lr")
    run(of_grid)
    ordinary, sweep = sorted(groups(store.all()), key=lambda group: any(one.sweep_around for one in group.records))
    assert [len(curve.points) for curve in curves(sweep.records)] == [len(GRID)]
    (entry,) = compare(ordinary, store)
    assert sorted(record.seed for record in entry.records) == seeds
    newest = groups(newest_of_each(store.all()))
    assert sum(len(group.records) for group in newest) == len(store.all()), "none is the other's newer version"


def test_the_same_command_does_nothing_again(swept: list[Record], folder: Path) -> None:
    assert _run(folder) == swept


def test_what_cannot_be_tuned_is_refused(refused: Callable, tmp_path: Path) -> None:
    assert "TUNE='epochs': expected lr" in refused("--tune", "epochs")
    assert "what takes no steps has no learning rate, as baselines" in refused("--tune", "lr", "--strategy", "majority")
    rows = tmp_path / "rows.yaml"
    rows.write_text("rows: [{name: one, strategy: head_only}]")
    assert "with a file that lists rows" in refused("--tune", "lr", "--config", str(rows))
