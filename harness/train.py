"""The training loop: one global order of batches, of which every rank takes its slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from harness.config import TrainingConfig
from harness.data.batches import Batch, Examples, collate, global_batches, micro_batches
from harness.engine import Engine, MicroBatch
from harness.engine.world import World
from harness.measure.clock import Clock, Step
from harness.model.split import Prefix

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
    prefix: Prefix,
    examples: Examples,
    config: TrainingConfig,
    seed: int,
    world: World,
    clock: Clock,
    on_progress: Callable[[int, int, float], None],
    width: int | None = None,
) -> list[float]:
    """Train on every epoch's batches and return the loss of each step, over all ranks.

    width: the row width of the plain path; None pads to the longest row of a micro-batch.
    on_progress receives steps done, steps in all, and the last loss.
    Raises Diverged where a loss is not finite.
    """
    batches = [
        batch
        for epoch in range(config.epochs)
        for batch in global_batches(len(examples), config.batch_size, seed, epoch, config.drop_last)
    ]
    losses: list[float] = []
    pending: list[torch.Tensor] = []
    for done, numbers in enumerate(batches, start=1):
        started = clock.now()
        rows = list(_my_rows(examples, numbers, config, world, width))
        micro = [_with_features(prefix, batch) for batch in rows]
        pending.append(engine.step(micro, len(numbers)))
        clock.steps.append(_measured(clock.now() - started, rows))
        if done % CHECK_EVERY_STEPS == 0 or done == len(batches):
            losses += world.sum(torch.stack(pending).double()).tolist()
            pending.clear()
            _stop_if_diverged(losses)
            on_progress(done, len(batches), losses[-1])
    return losses


def _my_rows(
    examples: Examples, numbers: np.ndarray, config: TrainingConfig, world: World, width: int | None
) -> Iterator[Batch]:
    micro_batch_size = config.micro_batch_size or -(-config.batch_size // world.size)
    for part, counts in micro_batches(numbers, micro_batch_size, world.rank, world.size):
        yield collate(examples, part, width, counts).to(world.device)


def _with_features(prefix: Prefix, batch: Batch) -> MicroBatch:
    features = prefix.features(batch.token_ids, batch.lengths)
    return MicroBatch(features, batch.lengths, batch.labels, batch.weights)


def _measured(seconds: float, rows: list[Batch]) -> Step:
    return Step(
        seconds,
        examples=sum(int(batch.weights.sum()) for batch in rows),
        real_tokens=sum(batch.real_tokens for batch in rows),
        padded_tokens=sum(batch.token_ids.numel() for batch in rows),
    )


def _stop_if_diverged(losses: list[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            raise Diverged(losses[:step])
