"""What a rank holds, against the formulas of ZeRO."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.schema import EngineConfig
from harness.config.suite import load_suite
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.prediction.exchange import GroupRates, exchange_seconds
from harness.prediction.machine import Machine
from harness.prediction.memory import rank_bytes
from harness.prediction.work.group import PROGRAM, START, Tasks, of_bytes
from harness.prediction.work.passes import Held, Parameters, Pass, RunWork
from harness.prediction.work.walk import Walk

TRAINED, FROZEN = 1_000_000, 500_000
# Gradients of all trained parameters, and 8 MB of activations.
STEP = Walk(Counter(), calls=10, peak_bytes=4 * TRAINED + 8e6)
WORK = RunWork(
    parameters=Parameters(TRAINED, FROZEN, 0),
    features=None,
    step=Pass("step", STEP, 100, STEP, 2),
    evaluate=Pass("evaluate", Walk(peak_bytes=2e6), 3, Walk(), 2),
    held=Held(TRAINED, 4 * FROZEN),
    blocks=2,
    stored_bytes=0,
    prefix_bytes=0,
    building_seconds=0.0,
)


@pytest.mark.parametrize(
    ("engine", "bytes_of_a_parameter"),
    [
        (EngineConfig(processes=4), 16),
        (EngineConfig(name="deepspeed", zero_stage=0, processes=4), 16),
        (EngineConfig(name="deepspeed", zero_stage=1, processes=4), 4 + 4 + 8 / 4),
        (EngineConfig(name="deepspeed", zero_stage=2, processes=4), 4 + 4 / 4 + 8 / 4),
        (EngineConfig(name="deepspeed", zero_stage=1, processes=4, offload_optimizer=True), 4 + 4),
        (EngineConfig(name="fsdp", processes=4), 16 / 4),
    ],
)
def test_state_is_shared_as_the_stage_says(engine: EngineConfig, bytes_of_a_parameter: float) -> None:
    held = rank_bytes(WORK, engine, element=4, kind="cuda", program=0.0)
    state = held.weights + held.gradients + held.optimizer
    assert state == pytest.approx(4 * FROZEN + TRAINED * bytes_of_a_parameter)
    assert held.activations == 8e6
    assert held.peak == held.training


@pytest.mark.parametrize(
    "engine",
    [
        EngineConfig(name="deepspeed", zero_stage=3, processes=4),
        EngineConfig(name="fsdp", processes=4, shard_frozen=True),
    ],
)
def test_frozen_parameters_that_are_shared_are_held_in_part_and_gathered(engine: EngineConfig) -> None:
    held = rank_bytes(WORK, engine, element=4, kind="cuda", program=0.0)
    assert held.weights == (4 * FROZEN + 4 * TRAINED) / 4
    rates = GroupRates(latency_seconds=1e-3, all_reduce=2e-9, all_gather=1e-9, reduce_scatter=1e-9)
    more = exchange_seconds(rates, engine, 4e6, gathered_bytes=4 * FROZEN) - exchange_seconds(rates, engine, 4e6)
    assert more == pytest.approx(2 * (1e-3 + 2e-3))


def test_on_a_cpu_an_offloaded_optimizer_takes_its_own_memory() -> None:
    engine = EngineConfig(name="deepspeed", zero_stage=1, processes=4, offload_optimizer=True)
    held = rank_bytes(WORK, engine, element=4, kind="cpu", program=0.0)
    assert held.optimizer == 8 * TRAINED / 4


def test_a_prefix_that_runs_in_every_step_stays() -> None:
    held = rank_bytes(WORK, EngineConfig(), element=4, kind="cuda", program=1e6)
    with_prefix = rank_bytes(
        RunWork(**{**WORK.__dict__, "prefix_bytes": 7_000_000}), EngineConfig(), element=4, kind="cuda", program=1e6
    )
    assert with_prefix.peak - held.peak == 7_000_000


def test_what_a_group_held_takes_the_place_of_arithmetic() -> None:
    engine = EngineConfig(name="fsdp", processes=4)
    by_arithmetic = rank_bytes(WORK, engine, element=4, kind="cuda", program=1e6)
    held = rank_bytes(WORK, engine, element=4, kind="cuda", program=1e6, measured=by_arithmetic.training + 5e6)
    assert held.training == by_arithmetic.training + 5e6
    assert held.buffers == 5e6
    assert rank_bytes(WORK, engine, element=4, kind="cuda", program=1e6, measured=0.0) == by_arithmetic


def test_bytes_of_all_blocks_follow_from_those_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks and four are rehearsed, of twelve."""
    options = {"model.name": "mini", "strategy": "full", "engine.processes": 2}
    suite = load_suite(None, options | {"data.name": "synthetic", "data.size": 60}, [])
    workspace = Workspace(tmp_path / "cache")
    (planned,) = resolve(suite, tmp_path, workspace).runs
    asked: list[int] = []

    def rehearsed(_: int, given: Tasks) -> dict[str, float]:
        asked.extend(task.blocks for task in given.tasks if task.kind == "step")
        seconds = {task.key: 1.0 for task in given.tasks} | {PROGRAM: 0.0, START: 0.0}
        return seconds | {of_bytes(task.key): 7e6 + 3e6 * task.blocks for task in given.tasks}

    monkeypatch.setattr("harness.prediction.machine.rehearsed", rehearsed)
    machine = Machine.at_hand(tmp_path, program_bytes=0.0)
    work = replace(WORK, blocks=12)
    assert machine.training_bytes(work, planned.config.engine) is None
    machine.rehearse([(planned, work)], lambda _: pytest.fail("alone"))
    assert asked == [2, 4]
    assert machine.training_bytes(work, planned.config.engine) == pytest.approx(7e6 + 3e6 * 12)
    of_three = replace(work, blocks=3)  # whose part of two blocks is the same
    machine.rehearse([(planned, work), (planned, of_three)], lambda _: pytest.fail("alone"))
    assert asked == [2, 4, 3]
    assert machine.training_bytes(of_three, planned.config.engine) == pytest.approx(7e6 + 3e6 * 3)


def test_a_ring_exchanges_what_the_engine_calls() -> None:
    rates = GroupRates(latency_seconds=1e-3, all_reduce=2e-9, all_gather=1e-9, reduce_scatter=1e-9)
    ddp = exchange_seconds(rates, EngineConfig(processes=4), trained_bytes=50e6)
    assert ddp == pytest.approx(2 * 1e-3 + 100e-3)
    stage = EngineConfig(name="deepspeed", zero_stage=3, processes=4)
    assert exchange_seconds(rates, stage, 50e6) == pytest.approx(3 * 2 * 1e-3 + 2 * 50e-3 + 50e-3)
