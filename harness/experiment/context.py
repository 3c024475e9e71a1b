"""The context of a run: its rank, its measurements, its observer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.distributed.process_group import World
from harness.distributed.signals import StopSignals
from harness.measure.clock import Clock
from harness.measure.energy import Counters, EnergyMeter
from harness.measure.memory import MemoryMeter
from harness.planning.workspace import Workspace
from harness.progress.observer import Observer


@dataclass(frozen=True)
class Context:
    """workspace: what the runs of a suite share. clock, memory and energy: of this run alone."""

    world: World
    workspace: Workspace
    observer: Observer
    signals: StopSignals
    clock: Clock
    memory: MemoryMeter
    energy: EnergyMeter

    @classmethod
    def begin(
        cls, world: World, workspace: Workspace, observer: Observer, signals: StopSignals, counters: Counters
    ) -> Context:
        clock, memory = Clock(world.device), MemoryMeter(world.device)
        return cls(world, workspace, observer, signals, clock, memory, EnergyMeter(counters))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Inside, time, peak memory and energy count for the phase `name`."""
        self.observer.phase(name)
        self.world.note(name)
        with self.clock.phase(name), self.memory.phase(name), self.energy.phase(name):
            yield
