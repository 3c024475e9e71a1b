"""Predictions of one run in several arrangements, and which of them is advised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.suite import load_suite
from harness.planning.plan import PlannedRun, resolve
from harness.planning.workspace import Workspace
from harness.prediction.arrangements import advise
from harness.prediction.devices import device_named
from harness.prediction.predict import Predictor
from harness.prediction.prediction import Prediction


@pytest.fixture
def full(tmp_path: Path) -> Callable[..., PlannedRun]:
    """A planned run of all of mini, with options as dotted keys."""
    given = {"strategy": "full", "model.name": "mini", "data.name": "synthetic", "data.size": 100}

    def planned(**options: object) -> PlannedRun:
        dotted = given | {key.replace("__", "."): value for key, value in options.items()}
        (run,) = resolve(load_suite(None, dotted, []), tmp_path, Workspace(tmp_path / "cache"), hosts=None).runs
        return run

    return planned


def _predicted(predictor: Predictor, planned: PlannedRun) -> Prediction:
    one = predictor.of_run(planned)
    assert isinstance(one, Prediction)
    return one


def test_arrangements_of_one_run_are_told_apart(tmp_path: Path, full: Callable) -> None:
    predictor = Predictor(Workspace(tmp_path / "cache"), device_named("h100"))
    saving = _predicted(predictor, full(training__gradient_checkpointing=True))
    assert saving.bytes.activations < _predicted(predictor, full()).bytes.activations


def test_every_gpu_costs_and_of_a_machine_without_them_the_machine(tmp_path: Path, full: Callable) -> None:
    run, workspace = full(engine__processes=4, engine__nodes=2), Workspace(tmp_path / "cache")
    for device, devices in ((device_named("h100"), 8), (device_named("h100").model_copy(update={"kind": "cpu"}), 2)):
        one = _predicted(Predictor(workspace, device), run)
        assert one.device_seconds == pytest.approx(one.total_seconds * devices)
        assert one.cost(2.5) == pytest.approx(2.5 * one.total_seconds / 3600 * devices)


def test_ranks_of_one_machine_that_are_faster_together_are_left_alone(tmp_path: Path, full: Callable) -> None:
    """The machine is paid for, not its ranks."""
    workspace, cores = Workspace(tmp_path / "cache"), device_named("h100").model_copy(update={"kind": "cpu"})
    predictor = Predictor(workspace, cores)
    alone = _predicted(predictor, full()).total_seconds
    asked = replace(_predicted(predictor, full(engine__processes=2)), seconds={"train": alone / 1.5})
    assert advise(predictor, asked) is None


def test_shared_frozen_parameters_are_advised_where_nothing_else_fits(tmp_path: Path, full: Callable) -> None:
    workspace, h100 = Workspace(tmp_path / "cache"), device_named("h100")
    options = {"strategy": "lora", "training__batch_size": 2}
    fsdp = {"engine__name": "fsdp", "engine__processes": 2, "engine__shard_frozen": True}
    least = _predicted(Predictor(workspace, h100), full(**options, **fsdp)).bytes.peak
    predictor = Predictor(workspace, h100.model_copy(update={"memory_bytes": least}))
    advice = advise(predictor, _predicted(predictor, full(**options)))
    what = 'ENGINE=fsdp NPROC=2 SET="engine.shard_frozen=true"'
    assert advice is not None
    assert advice.startswith(f"does not fit; the cheapest that does is {what}: ")


def test_another_arrangement_of_a_run_finds_the_features_that_the_run_finds(tmp_path: Path) -> None:
    given = {"strategy": ["head_only", "last_block"], "seed": [0, 1], "model.name": "mini", "data.name": "synthetic"}
    workspace = Workspace(tmp_path / "cache")
    plan = resolve(load_suite(None, given | {"data.size": 100}, []), tmp_path, workspace)
    for _ in ("walked", "kept"):
        predictor = Predictor(workspace, device_named("h100"))
        asked = [one for one in predictor.of_plan(plan) if isinstance(one, Prediction)]
        assert [bool(one.seconds["features"]) for one in asked] == [True, False, True, False]
        for one in asked:
            again = _predicted(predictor, one.planned)
            assert (again.seconds, again.bytes) == (one.seconds, one.bytes)


@pytest.mark.parametrize(
    ("options", "captured"),
    [
        ({}, True),
        ({"engine__name": "fsdp"}, True),
        ({"engine__processes": 2}, False),
        ({"training__gradient_checkpointing": True}, False),
        ({"plain": True}, False),
    ],
)
def test_the_host_holds_up_steps_that_are_not_captured(
    tmp_path: Path, full: Callable, options: dict[str, object], captured: bool
) -> None:
    slow_host = device_named("h100").model_copy(update={"host_seconds": 1.0})
    one = _predicted(Predictor(Workspace(tmp_path / "cache"), slow_host), full(**options))
    assert (one.step_seconds < 1.0) == captured
