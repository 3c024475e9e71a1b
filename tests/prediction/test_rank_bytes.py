"""What a rank holds, against the formulas of ZeRO."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.config.schema import EngineConfig
from harness.prediction.exchange import GroupRates, exchange_seconds
from harness.prediction.memory import rank_bytes
from harness.prediction.work.passes import Parameters, Pass, RunWork
from harness.prediction.work.walk import Walk

TRAINED, FROZEN = 1_000_000, 500_000
# Gradients of all trained parameters, and 8 MB of activations.
STEP = Walk(Counter(), calls=10, peak_bytes=4 * TRAINED + 8e6)
WORK = RunWork(
    parameters=Parameters(TRAINED, FROZEN, 0),
    features=None,
    step=Pass("step", STEP, 100, STEP, 2),
    evaluate=Pass("evaluate", Walk(peak_bytes=2e6), 3, Walk(), 2),
    trained_here=TRAINED,
    stored_bytes=0,
    frozen_bytes=4 * FROZEN,
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
        (EngineConfig(name="deepspeed", zero_stage=3, processes=4), 16 / 4),
        (EngineConfig(name="fsdp", processes=4), 16 / 4),
    ],
)
def test_state_is_shared_as_the_stage_says(engine: EngineConfig, bytes_of_a_parameter: float) -> None:
    held = rank_bytes(WORK, engine, element=4, program=0.0)
    state = held.weights + held.gradients + held.optimizer
    assert state == pytest.approx(4 * FROZEN + TRAINED * bytes_of_a_parameter)
    assert held.activations == 8e6
    assert held.peak == held.training


def test_a_prefix_that_runs_in_every_step_stays() -> None:
    held = rank_bytes(WORK, EngineConfig(), element=4, program=1e6)
    with_prefix = rank_bytes(
        RunWork(**{**WORK.__dict__, "prefix_bytes": 7_000_000}), EngineConfig(), element=4, program=1e6
    )
    assert with_prefix.peak - held.peak == 7_000_000


def test_a_ring_exchanges_what_the_engine_calls() -> None:
    rates = GroupRates(latency_seconds=1e-3, all_reduce=2e-9, all_gather=1e-9, reduce_scatter=1e-9)
    ddp = exchange_seconds(rates, EngineConfig(processes=4), trained_bytes=4e6, tensors=2)
    assert ddp == pytest.approx(2 * 1e-3 + 8e-3)
    stage = EngineConfig(name="deepspeed", zero_stage=3, processes=4)
    assert exchange_seconds(rates, stage, 4e6, 2) == pytest.approx(3 * 2 * 1e-3 + 2 * 4e-3 + 4e-3)
