"""The training loop: one global order of batches, of which every rank takes its slice."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import numpy as np
import torch

from harness.config.schema import TrainingConfig
from harness.data.batching import global_batches, micro_batches
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.measure.clock import Clock, Step
from harness.results.record import TrainingCurve
from harness.training.checkpoints import Checkpoints
from harness.training.engines.protocol import Engine, MicroBatch

# Several ranks exchange losses, and whether one was asked to stop, this often: seldom enough not to matter, often
# enough to write a checkpoint before a cluster's patience ends.
EXCHANGE_EVERY_STEPS = 5


class Diverged(Exception):
    """The loss of a step is not finite. `curve` ends with it."""

    def __init__(self, curve: TrainingCurve) -> None:
        super().__init__(f"the loss of step {len(curve)} is {curve.losses[-1]}")
        self.curve = curve


def train(
    engine: Engine,
    features: Features,
    examples: Examples,
    config: TrainingConfig,
    seed: int,
    world: World,
    clock: Clock,
    checkpoints: Checkpoints,
    on_progress: Callable[[int, int, float, float], None],
) -> tuple[TrainingCurve, int | None]:
    """Train on every epoch's batches; go on from the last checkpoint where there is one.

    Returns the curve and the step that it went on from. on_progress receives steps done, steps in all, the last loss,
    and the share of right answers since it was last called.
    Raises Diverged where a loss is not finite, KeyboardInterrupt after a checkpoint where a signal asked to stop.
    """
    batches = [
        batch
        for epoch in range(config.epochs)
        for batch in global_batches(len(examples), config.batch_size, seed, epoch, config.drop_last)
    ]
    with world.stop_signals.postponed() as asked_to_stop:
        began = (
            checkpoints.resume(engine, world, lambda: share_of(batches[0], features, examples, config, world))
            if batches
            else None
        )
        curve, earlier_seconds = (began.curve, began.seconds) if began else (TrainingCurve(), 0.0)
        resumed_from, started = len(curve) or None, clock.now()
        pending: list[torch.Tensor] = []
        for done, batch in enumerate(batches[len(curve) :], start=len(curve) + 1):
            step_started = clock.now()
            pending.append(engine.step(share_of(batch, features, examples, config, world), len(batch)))
            mine = batch[world.rank :: world.size]
            clock.steps.append(_measured(clock.now() - step_started, examples, mine, features))
            last, due, alone = done == len(batches), checkpoints.due(done), world.size == 1
            if last or due or done % EXCHANGE_EVERY_STEPS == 0 or (alone and asked_to_stop()):
                losses, accuracies, stop = _exchange(world, pending, asked_to_stop())
                pending.clear()
                curve.losses += losses
                curve.accuracies += accuracies
                _stop_if_diverged(curve, since=len(curve) - len(losses))
                world.note(f"training step {done}")
                on_progress(done, len(batches), losses[-1], fmean(accuracies))
                if stop or (due and not last):
                    checkpoints.save(engine, world, curve, earlier_seconds + clock.now() - started)
                if stop:
                    raise KeyboardInterrupt
    clock.phases["train"] = clock.phases.get("train", 0.0) + earlier_seconds
    return curve, resumed_from


def share_of(
    batch: np.ndarray, features: Features, examples: Examples, config: TrainingConfig, world: World
) -> list[MicroBatch]:
    """This rank's rows of a global batch, as `Engine.step` takes them."""
    size = config.micro_batch_size or -(-config.batch_size // world.size)
    return [
        _micro_batch(features, examples, *part, world) for part in micro_batches(batch, size, world.rank, world.size)
    ]


def _exchange(world: World, pending: list[torch.Tensor], asked_to_stop: bool) -> tuple[list[float], list[float], bool]:
    """Losses and accuracies of the pending steps over all ranks, and whether any rank was asked to stop."""
    asked = torch.tensor([[float(asked_to_stop), 0.0]], device=world.device)
    *steps, (wishes, _) = world.sum(torch.cat([torch.stack(pending), asked]).double()).tolist()
    return [loss for loss, _ in steps], [accuracy for _, accuracy in steps], wishes > 0


def _micro_batch(features: Features, examples: Examples, numbers: np.ndarray, counts: bool, world: World) -> MicroBatch:
    inputs, rows = features.batch(numbers)
    labels = torch.from_numpy(examples.labels[numbers]).to(world.device)
    return MicroBatch(inputs, rows, labels, torch.full_like(labels, counts, dtype=torch.float32))


def _measured(seconds: float, examples: Examples, counted: np.ndarray, features: Features) -> Step:
    return Step(
        seconds,
        examples=len(counted),
        real_tokens=int(examples.real_lengths[counted].sum()),
        padded_tokens=features.width * len(counted) if features.width else int(examples.lengths[counted].sum()),
    )


def _stop_if_diverged(curve: TrainingCurve, since: int) -> None:
    for step in range(since, len(curve)):
        if not math.isfinite(curve.losses[step]):
            raise Diverged(TrainingCurve(losses=curve.losses[: step + 1], accuracies=curve.accuracies[: step + 1]))
