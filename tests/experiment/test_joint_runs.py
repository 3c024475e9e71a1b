"""Runs of a suite that are trained as one model: each with its own record, as if it had run by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.data.splits import SPLITS
from harness.planning.joint import joint_groups
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import curve_of

SUITE = {"model.name": "mini", "data.name": "synthetic", "data.size": 60, "training.epochs": 2, "precision": "fp64"}


def _run(folder: Path, changes: dict[str, object]) -> dict[tuple[float, int], Record]:
    """By learning rate and seed."""
    suite, store = load_suite(None, SUITE | {"strategy": "head_only"} | changes, []), Store(folder / "results")
    assert commands.run_suite(Console(quiet=True), suite, store.results, folder / "cache", force=False) == 0
    return {(one.config["optimizer"]["learning_rate"], one.seed): one for one in store.all()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joint")


@pytest.fixture(scope="module")
def joint(folder: Path) -> dict[tuple[float, int], Record]:
    return _run(folder, {"seed": [0, 1, 2]})


def test_all_but_the_last_are_trained_as_one(joint: dict[tuple[float, int], Record]) -> None:
    assert [record.joint_runs for record in joint.values()] == [2, 2, None]
    alone, shares = joint[3e-4, 2], [record for record in joint.values() if record.joint_runs]
    assert alone.memory is not None, "it is what costs are taken from"
    assert alone.step_milliseconds is not None
    assert all(record.memory is None for record in shares)
    assert sum(record.prefix.computed_tokens > 0 for record in joint.values()) <= 1


def test_each_ends_as_it_does_by_itself(joint: dict[tuple[float, int], Record], folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (alone,) = _run(tmp_path / str(seed), {"seed": seed}).values()
        record = joint[3e-4, seed]
        assert alone.joint_runs is None
        assert alone.identity == record.identity
        for part in SPLITS:
            losses = [getattr(one.ok_metrics, part).loss for one in (alone, record)]
            assert losses[0] == pytest.approx(losses[1], abs=1e-9)
        curves = [
            curve_of(folder / "results", record)["loss"],
            curve_of(tmp_path / str(seed) / "results", alone)["loss"],
        ]
        assert curves[0].tolist() == pytest.approx(curves[1].tolist(), abs=1e-9)


def test_rates_of_a_sweep_are_trained_as_one(tmp_path: Path) -> None:
    records = _run(tmp_path, {"tune": "lr"})
    rates = sorted({rate for rate, _ in records})
    assert len(rates) == 6
    assert sum(record.joint_runs is None for record in records.values()) == 1
    losses = [records[rate, 0].ok_metrics.train.loss for rate in rates[:4]]
    assert losses == sorted(losses, reverse=True), "each at its own rate"


@pytest.mark.parametrize(
    "changes",
    [
        {"training.dropout": 0.1},
        {"training.keep": "best"},
        {"training.micro_batch_size": 4},
        {"strategy": "last_block"},
        {"plain": True, "precision": "fp32"},
    ],
    ids=str,
)
def test_what_a_joint_step_does_not_do_runs_by_itself(changes: dict[str, object], tmp_path: Path) -> None:
    asked, workspace = SUITE | {"strategy": "head_only", "seed": [0, 1, 2]}, Workspace(tmp_path / "cache")
    for expected, options in ((1, asked), (0, asked | changes)):
        plan = resolve(load_suite(None, options, []), tmp_path / "results", workspace)
        assert len(list(joint_groups(plan, workspace, "cpu"))) == expected
