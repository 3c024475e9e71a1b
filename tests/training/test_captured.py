"""The life of a captured step. The capture itself is replaced here by one that keeps the function and calls it again:
that real graphs do the same is for `make test-gpu`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import strategies
from harness import kernels
from harness.config.schema import OptimizerConfig, TrainingConfig
from harness.distributed.process_group import World
from harness.distributed.signals import StopSignals
from harness.features.features import Features
from harness.measure.clock import Clock
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import split
from harness.results.record import TrainingCurve
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines import captured
from harness.training.engines.captured import Body, CapturedSteps
from harness.training.engines.ddp import DDPEngine
from harness.training.loop import Diverged, train
from harness.training.micro_batch import MicroBatch
from harness.training.selection import Selection
from tests.features.test_features import examples_of

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
EXAMPLES = examples_of([[7] * length for length in np.random.default_rng(0).integers(1, 40, 61)])


class Graphs:
    """Captures without running anything, and replays into the same result, as CUDA graphs do. failing: the number of
    the capture that comes as far as the optimizer, where `forbid` stops it."""

    def __init__(self, failing: int | None = None) -> None:
        self.captures, self.replays, self.failing = 0, 0, failing
        self._capturing = False

    def __call__(self, body: Body) -> Body:
        self.captures += 1
        if self.captures == self.failing:
            self._capturing = True
            body()
        result = torch.zeros(2)

        def replay() -> Tensor:
            self.replays += 1
            return result.copy_(body())

        return replay

    def forbid(self, *_: object) -> None:
        if self._capturing:
            self._capturing = False
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def _engine(graphs: Graphs | None, optimizer: OptimizerConfig) -> DDPEngine:
    torch.manual_seed(0)
    _, suffix = split(filled_backbone("mini", RandomWeights("gpt2", 1)), strategies.load("full").strategy, 2)
    kernels.fuse(suffix)
    engine = DDPEngine(WORLD, "fp32", fused=True)
    engine.prepare(suffix, optimizer)
    if graphs:
        engine._steps = CapturedSteps(engine._step, CPU, graphs)
    return engine


def _batches(training: TrainingConfig) -> TrainingBatches:
    prefix, _ = split(filled_backbone("mini", RandomWeights("gpt2", 1)), strategies.load("full").strategy, 2)
    return TrainingBatches(Features.computed(prefix, EXAMPLES, CPU), EXAMPLES, training, 0, WORLD, few_shapes=True)


def _curve(
    folder: Path,
    graphs: Graphs | None,
    training: TrainingConfig,
    optimizer: OptimizerConfig,
    stop_after: int | None = None,
) -> TrainingCurve:
    """stop_after: a signal asks to stop once so many steps are done."""
    signals = StopSignals()
    selection = Selection(training, validate=lambda: pytest.fail("no epoch is judged"))
    checkpoints = Checkpoints(folder, {}, training.checkpoint_steps, signals)

    def on_progress(done: int, steps: int, loss: float, accuracy: float) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    curve, _ = train(
        _engine(graphs, optimizer), _batches(training), optimizer, selection, checkpoints, Clock(CPU), on_progress
    )
    return curve


@pytest.mark.parametrize(
    "training",
    [
        TrainingConfig(epochs=3),
        TrainingConfig(epochs=3, micro_batch_size=3, drop_last=False),
    ],
)
def test_replayed_steps_give_the_same_losses(tmp_path: Path, training: TrainingConfig) -> None:
    graphs, optimizer = Graphs(), OptimizerConfig(learning_rate=1e-3, clip_norm=0.5)
    plain = _curve(tmp_path / "a", None, training, optimizer)
    assert _curve(tmp_path / "b", graphs, training, optimizer) == plain
    assert 0 < graphs.captures <= graphs.replays < len(plain), "the first step of each shape is none"


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    training, optimizer = TrainingConfig(epochs=3, checkpoint_steps=5), OptimizerConfig(learning_rate=1e-3)
    plain = _curve(tmp_path / "a", None, training, optimizer)
    with pytest.raises(KeyboardInterrupt):
        _curve(tmp_path / "b", Graphs(), training, optimizer, stop_after=10)
    assert _curve(tmp_path / "b", Graphs(), training, optimizer) == plain


def test_a_diverging_run_ends_at_the_same_step(tmp_path: Path) -> None:
    training, optimizer = TrainingConfig(epochs=3), OptimizerConfig(learning_rate=1e30)
    curves = []
    for graphs in (None, Graphs()):
        with pytest.raises(Diverged) as diverged:
            _curve(tmp_path, graphs, training, optimizer)
        curves.append(diverged.value.curve)
    np.testing.assert_array_equal(curves[0].losses, curves[1].losses)


def test_what_can_not_be_captured_runs_as_it_is(tmp_path: Path) -> None:
    training, optimizer = TrainingConfig(epochs=3), OptimizerConfig(learning_rate=1e-3)
    graphs = Graphs(failing=2)
    engine = _engine(graphs, optimizer)
    engine._optimizer.register_step_pre_hook(graphs.forbid)
    batches = _batches(training)
    losses = [engine.step(batches.local(part), len(part))[0].item() for part in batches.of_all_epochs()]
    assert losses == _curve(tmp_path, None, training, optimizer).losses
    assert graphs.captures == 2, "no other is tried"
    assert engine.not_captured == "capture failed: operation not permitted when stream is capturing"


def _steps(monkeypatch: pytest.MonkeyPatch, most: int) -> tuple[Callable[[int], float], Graphs, CapturedSteps]:
    """A step that gives the tokens of its batch of as many rows."""
    monkeypatch.setattr(captured, "LARGEST_NUMBER", most)
    graphs, features = Graphs(), Features(torch.arange(100), np.arange(100), np.ones(100, dtype=np.int64), CPU)

    def step(micro_batches: list[MicroBatch], global_count: int) -> Tensor:
        return torch.stack([micro_batches[0].inputs()[0].sum().float(), torch.tensor(0.0)])

    steps = CapturedSteps(step, CPU, graphs)

    def total(rows: int, first: int = 0) -> float:
        indices = np.arange(first, first + rows)
        return steps([MicroBatch.of(features, indices, np.zeros(rows, dtype=np.int64), True)], rows)[0].item()

    return total, graphs, steps


def test_a_shape_is_captured_when_it_is_met_again_and_replayed_with_other_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    total, graphs, steps = _steps(monkeypatch, most=2)
    seen = []
    for rows, first in [(2, 0), (2, 10), (3, 0), (2, 20), (4, 0), (4, 1), (3, 30)]:
        assert total(rows, first) == sum(range(first, first + rows))
        seen.append((graphs.captures, graphs.replays))
    # Two shapes fill the limit: that of four rows always runs as it is.
    assert seen == [(0, 0), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2), (2, 3)]
    assert (steps.captured, steps.reason) == (2, None)
