"""What is predicted of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.config.schema import EngineConfig
from harness.errors import UserError
from harness.planning.plan import PlannedRun
from harness.prediction.memory import RankBytes
from harness.prediction.work.passes import Parameters

PHASES = ("prepare", "features", "train", "evaluate")


@dataclass(frozen=True)
class NotPredicted:
    """A run whose code fails where it is walked through or rehearsed, and the reason."""

    planned: PlannedRun
    problem: UserError


@dataclass(frozen=True)
class Prediction:
    """seconds: by phase, 0 where the run does not fit. bytes: of one rank. available: bytes that a rank may take.
    steps: of all epochs. devices: GPUs, or without GPUs machines, that all ranks take."""

    planned: PlannedRun
    engine: EngineConfig
    parameters: Parameters
    seconds: dict[str, float]
    bytes: RankBytes
    available: float
    steps: int
    devices: int

    @property
    def step_seconds(self) -> float:
        """Of one step, exchange included."""
        return self.seconds["train"] / self.steps if self.steps else 0.0

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def device_seconds(self) -> float:
        """Of all devices together: what is paid for."""
        return self.total_seconds * self.devices

    def cost(self, price: float) -> float:
        """price: of an hour of a device."""
        return price * self.device_seconds / 3600

    @property
    def fits(self) -> bool:
        return self.bytes.peak <= self.available


def key_of(planned: PlannedRun) -> str:
    """Equal for runs that differ in their seed only."""
    assert planned.strategy is not None, "baselines are not predicted"
    config = planned.config.model_dump(mode="json", exclude={"seed"})
    hashes = [planned.source.sha256, planned.model.weights_sha256, planned.strategy.source.sha256]
    return json.dumps([config, *hashes], sort_keys=True)


def name_of(planned: PlannedRun) -> str:
    """Of its row in a suite's file, or of the strategy, which may have been asked for by path."""
    return planned.name if planned.title == planned.config.strategy else planned.title
