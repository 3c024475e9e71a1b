"""The training loop: one global order of batches, of which every rank takes its slice."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from harness.config import TrainingConfig
from harness.data.batches import Examples, global_batches, micro_batches
from harness.engine.protocol import Engine, MicroBatch
from harness.engine.world import World
from harness.measure.clock import Clock, Step
from harness.model.features import Features

# Losses are exchanged and checked this often: often enough to stop a diverged run and to show progress, rarely
# enough not to matter.
CHECK_EVERY_STEPS = 50


class Diverged(Exception):
    """The loss of a step is not finite. `losses` holds those until then."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__(f"the loss of step {len(losses)} is {losses[-1]}")
        self.losses = losses


def train(
    engine: Engine,
    features: Features,
    examples: Examples,
    config: TrainingConfig,
    seed: int,
    world: World,
    clock: Clock,
    on_progress: Callable[[int, int, float], None],
) -> list[float]:
    """Train on every epoch's batches and return the loss of each step, over all ranks.

    on_progress receives steps done, steps in all, and the last loss.
    Raises Diverged where a loss is not finite.
    """
    batches = [
        batch
        for epoch in range(config.epochs)
        for batch in global_batches(len(examples), config.batch_size, seed, epoch, config.drop_last)
    ]
    micro_batch_size = config.micro_batch_size or -(-config.batch_size // world.size)
    losses: list[float] = []
    pending: list[torch.Tensor] = []
    for done, batch in enumerate(batches, start=1):
        started = clock.now()
        mine = micro_batches(batch, micro_batch_size, world.rank, world.size)
        pending.append(engine.step([_micro_batch(features, examples, *part, world) for part in mine], len(batch)))
        counted = np.concatenate([numbers for numbers, counts in mine if counts] or [batch[:0]])
        clock.steps.append(_measured(clock.now() - started, examples, counted, features))
        if done % CHECK_EVERY_STEPS == 0 or done == len(batches):
            losses += world.sum(torch.stack(pending).double()).tolist()
            pending.clear()
            _stop_if_diverged(losses)
            on_progress(done, len(batches), losses[-1])
    return losses


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


def _stop_if_diverged(losses: list[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            raise Diverged(losses[:step])
