"""Time of phases, with the device synchronised, and of training steps, by marks in the device's own queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from harness.results.record import StepTimes, Throughput

# Steps that allocate, choose kernels and fill caches; they are left out of throughput and step times.
WARM_UP_STEPS = 10


@dataclass(frozen=True)
class Step:
    """One training step of one rank: examples and real tokens it counted, tokens it computed, padding included."""

    seconds: float
    examples: int
    real_tokens: int
    padded_tokens: int


# A point in a device's work: an event in the queue of a GPU, on a CPU the time itself.
Mark = torch.cuda.Event | float


@dataclass
class Clock:
    device: torch.device
    phases: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to the phase `name`."""
        started = self.now()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + self.now() - started

    def now(self) -> float:
        """Seconds, once the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def mark(self) -> Mark:
        """The end of all work that the device was given so far, without waiting for it."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Mark, end: Mark) -> float:
        """Seconds, once the device has come to `end`."""
        if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            end.synchronize()
            return start.elapsed_time(end) / 1000
        assert not isinstance(start, torch.cuda.Event), "both are marks of one clock"
        assert not isinstance(end, torch.cuda.Event), "both are marks of one clock"
        return end - start

    def steady_steps(self) -> list[Step]:
        return self.steps[WARM_UP_STEPS:]


def throughput(steps_by_rank: list[list[Step]]) -> Throughput:
    """Examples, real tokens and padded tokens per second of all ranks together, over steady-state steps.

    None where a run was shorter than the warm-up. Ranks wait for each other in every step, so the time of a step
    is that of its slowest rank.
    """
    if not steps_by_rank[0]:
        return Throughput(examples_per_second=None, real_tokens_per_second=None, padded_tokens_per_second=None)
    seconds = sum(max(step.seconds for step in same) for same in zip(*steps_by_rank, strict=True))
    every = [step for steps in steps_by_rank for step in steps]
    return Throughput(
        examples_per_second=sum(step.examples for step in every) / seconds,
        real_tokens_per_second=sum(step.real_tokens for step in every) / seconds,
        padded_tokens_per_second=sum(step.padded_tokens for step in every) / seconds,
    )


def step_milliseconds(steps: list[Step]) -> StepTimes:
    if not steps:
        return StepTimes(p50=None, p95=None)
    p50, p95 = np.percentile([1000 * step.seconds for step in steps], [50, 95])
    return StepTimes(p50=float(p50), p95=float(p95))
