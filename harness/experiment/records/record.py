"""The record of a run, in whatever state it ended."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.experiment.context import Context
from harness.measure import clock as clocks
from harness.measure.memory import definition
from harness.planning.plan import PlannedRun
from harness.results.outcome import Outcome
from harness.results.record import (
    Energy,
    EngineFacts,
    Memory,
    ModelFacts,
    RankMemory,
    Record,
    Seconds,
    Status,
    StepTimes,
    Throughput,
)

PHASES = ("prepare", "features", "train", "evaluate")


@dataclass(frozen=True)
class Ending:
    """status: how a run ended. error: the reason where it did not end well."""

    status: Status
    error: str | None = None


@dataclass(frozen=True)
class Measurements:
    """Times, memory and energy of a run over its ranks; by default of a run that left none."""

    seconds: Seconds
    throughput: Throughput | None = None
    step_milliseconds: StepTimes | None = None
    memory: Memory | None = None
    energy: Energy | None = None

    @classmethod
    def none(cls) -> Measurements:
        return cls(_seconds({}))

    @classmethod
    def of(cls, context: Context, all_ranks: bool) -> Measurements:
        """all_ranks: whether every rank calls it; else they are this rank's alone."""
        gather: Callable[[Any], list[Any]] = context.world.gather if all_ranks else lambda value: [value]
        steps = gather(context.clock.steady_steps())
        return cls(
            seconds=_seconds(context.clock.phases),
            throughput=clocks.throughput(steps),
            step_milliseconds=clocks.step_milliseconds(steps[0]),
            memory=_memory(gather, context),
            energy=context.energy.over_ranks(gather) if all_ranks or context.world.size == 1 else None,
        )


def record_of(
    planned: PlannedRun,
    ending: Ending,
    world_size: int,
    environment: dict[str, Any],
    outcome: Outcome | None = None,
    measurements: Measurements | None = None,
) -> Record:
    """outcome, measurements: None for a run that vanished without a trace."""
    outcome, measurements = outcome or Outcome(), measurements or Measurements.none()
    used, strategy = planned.used, planned.strategy
    model, engine = used.get("model", {}), used.get("engine", {})
    return Record(
        run_id=planned.run_id,
        identity=planned.identity,
        status=ending.status,
        strategy=planned.name,
        strategy_source=planned.source,
        readout=strategy.readout if strategy else None,
        attention=strategy.attention if strategy else None,
        phases=strategy.phases if strategy else (),
        seed=planned.config.seed,
        precision=used.get("precision"),
        choices=planned.choices,
        model=ModelFacts(
            name=model.get("name"),
            weights=model.get("weights"),
            weights_sha256=planned.model.weights_sha256,
            parameters=outcome.parameters,
            trainable_parameters=outcome.trainable_parameters,
        ),
        data=outcome.data,
        engine=EngineFacts(name=engine.get("name"), zero_stage=engine.get("zero_stage"), world_size=world_size),
        metrics=outcome.metrics,
        calibration=outcome.calibration,
        forgetting=outcome.forgetting,
        prefix=outcome.prefix,
        joint_runs=outcome.joint_runs,
        resumed_from_step=outcome.resumed_from_step,
        epochs=outcome.epochs,
        head_fit=outcome.head_fit,
        sweep_around=planned.sweep_around,
        graphs=outcome.graphs,
        communication=outcome.communication,
        throughput=measurements.throughput,
        step_milliseconds=measurements.step_milliseconds,
        seconds=measurements.seconds,
        memory=None if outcome.joint_runs else measurements.memory,  # the others' parameters lay beside its own
        energy=_energy(measurements.energy, outcome, planned),
        environment=environment,
        config=used,
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        error=ending.error,
    )


def _seconds(phases: dict[str, float]) -> Seconds:
    return Seconds(**{name: phases.get(name) for name in PHASES}, total=sum(phases.values()))


def _memory(gather: Callable[[Any], list[Any]], context: Context) -> Memory | None:
    meter = context.memory
    local = RankMemory(rank=context.world.rank, at_start=meter.at_start, phases=meter.peaks, reserved=meter.reserved)
    by_rank: list[RankMemory] = gather(local)
    if not meter.peaks:
        return None
    peak = max(peak for rank in by_rank for peak in rank.phases.values())
    return Memory(peak_bytes=peak, definition=definition(context.world.device), by_rank=by_rank)


def _energy(measured: Energy | None, outcome: Outcome, planned: PlannedRun) -> Energy | None:
    """What was measured, where that is the energy of this run, all of it and no other's."""
    if measured is None or measured.watt_hours is None:
        return measured
    if outcome.joint_runs:
        return Energy(not_measured=[f"{outcome.joint_runs} runs were trained as one model"])
    if outcome.resumed_from_step is not None:
        return Energy(not_measured=["the run was resumed: what it took before is not known"])
    return measured.model_copy(update={"per_thousand_predictions": _per_thousand(measured, outcome, planned)})


def _per_thousand(measured: Energy, outcome: Outcome, planned: PlannedRun) -> float | None:
    """Evaluation predicts each text once. Where it read features that this run had stored, they belong to it; None
    where the run did not compute all of them, or also others."""
    if outcome.metrics is None or "evaluate" not in measured.phases:
        return None
    scores = outcome.metrics
    predictions = sum(part.total for part in (scores.train, scores.validation, scores.test))
    watt_hours = measured.phases["evaluate"]
    strategy = planned.strategy
    if strategy and outcome.prefix and not outcome.prefix.not_stored:
        of_others = (strategy.fits_head and strategy.takes_steps) or planned.config.training.texts is not None
        if outcome.prefix.reused_tokens or of_others:
            return None
        watt_hours += measured.phases["features"]
    return 1000 * watt_hours / predictions
