"""Runs on a chosen device, in this process, and how their steps were captured."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.experiment import run
from harness.results.record import Record
from harness.results.store import Store
from harness.training.batches import TrainingBatches
from harness.training.engines import captured, ddp
from tests.support.runs import losses_of

# 84 texts are trained on: 11 steps an epoch, the last one of 4 texts. At mini's own learning rate LoRA, whose update is
# scaled by 16, amplifies the last bit.
SMALL = {
    "model.name": "mini",
    "data.name": "synthetic",
    "data.size": 120,
    "optimizer.learning_rate": 1e-4,
    "training.epochs": 2,
    "training.drop_last": False,
    "precision": "fp32",
}


@dataclass(frozen=True)
class Finished:
    """A run that ended well, with its losses."""

    record: Record
    losses: list[float]


@dataclass(frozen=True)
class Runs:
    """Runs below `folder`; those of a name share a results folder, all share the stored features."""

    folder: Path

    def store(self, name: str) -> Store:
        return Store(self.folder / name)

    def run(self, name: str, strategies: Sequence[str], **options: object) -> dict[str, Record]:
        """The records by strategy. options: as `model__name`, in the place of SMALL's."""
        given = {key.replace("__", "."): value for key, value in options.items()}
        suite = load_suite(None, SMALL | given | {"strategy": list(strategies)}, [])
        folder, cache = self.folder / name, self.folder / "cache"
        commands.run_suite(Console(quiet=True), suite, folder, cache, force=False, quiet=True)
        return {record.strategy: record for record in self.store(name).all()}

    def finished(self, name: str, strategies: Sequence[str], **options: object) -> dict[str, Finished]:
        """The same, of runs that must end well."""
        found = {}
        for strategy, record in self.run(name, strategies, **options).items():
            assert record.status == "ok", record.error
            found[strategy] = Finished(record, losses_of(self.folder / name, record))
        return found


@contextmanager
def on_cpu() -> Iterator[None]:
    """Runs inside take the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@contextmanager
def kernel_by_kernel() -> Iterator[None]:
    """No step inside is captured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "LARGEST_NUMBER", 0)
        yield


@dataclass
class Captures:
    """count: of graphs. refused: why a capture failed."""

    count: int = 0
    refused: list[str] = field(default_factory=list)


@contextmanager
def watched_captures(device: torch.device) -> Iterator[Captures]:
    """What was captured inside. On a CPU, which has no graphs, a replay runs the step again, on batches of few shapes
    as a GPU's are."""
    found, capture, give_up = Captures(), captured.CUDAGraphs.__call__, captured.CapturedSteps._give_up

    def counted(graphs: captured.CUDAGraphs, body: captured.Body) -> captured.Body:
        found.count += 1
        return capture(graphs, body) if device.type == "cuda" else body

    def noted(steps: captured.CapturedSteps, problem: RuntimeError) -> None:
        found.refused.append(str(problem))
        give_up(steps, problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured.CUDAGraphs, "__call__", counted)
        patch.setattr(captured.CapturedSteps, "_give_up", noted)
        if device.type != "cuda":
            patch.setattr(ddp, "not_capturable", lambda *_: None)
            patch.setattr(run, "TrainingBatches", functools.partial(TrainingBatches, few_shapes=True))
        yield found
