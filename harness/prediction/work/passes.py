"""What a run has to compute, phase by phase, as `walker.RunWalker` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.prediction.work.walk import Walk

Kind = Literal["features", "step", "evaluate"]


@dataclass(frozen=True)
class Pass:
    """walk: of one. times: how often it is done, in parts where passes differ in size. largest: how many times the
    tokens of a typical one the largest has. sample: the walk of a part. blocks: of the sample. done: how many stages of
    the prefix an earlier run has computed."""

    kind: Kind
    walk: Walk
    times: float
    sample: Walk
    blocks: int
    done: int = 0
    largest: float = 1.0

    @property
    def peak_bytes(self) -> float:
        """Of the largest."""
        return self.walk.peak_bytes * self.largest


@dataclass(frozen=True)
class Parameters:
    """Counts. trained, frozen: of the suffix. prefix: all are frozen."""

    trained: int
    frozen: int
    prefix: int


@dataclass(frozen=True)
class Held:
    """Of a suffix, in the memory of a rank that shares nothing. trained: how many parameters, of a token embedding only
    the rows of tokens that occur. frozen_bytes: of the others."""

    trained: int
    frozen_bytes: int


@dataclass(frozen=True)
class RunWork:
    """features: of the prefix on distinct texts, once, for all ranks together; None where it is empty, runs in every
    pass, or an earlier run has computed them. step, evaluate: of one rank. held, blocks: of the suffix. stored_bytes:
    of features that are written. prefix_bytes: of the prefix, which is not loaded where an earlier run has computed its
    features. building_seconds: of the host, for the modules.
    """

    parameters: Parameters
    features: Pass | None
    step: Pass
    evaluate: Pass
    held: Held
    blocks: int
    stored_bytes: int
    prefix_bytes: int
    building_seconds: float

    @property
    def passes(self) -> list[Pass]:
        return [self.step, self.evaluate, *([self.features] if self.features else [])]
