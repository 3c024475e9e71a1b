"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from harness.config.schema import OptimizerConfig
from harness.distributed.process_group import World
from harness.measure.clock import Clock, Mark
from harness.results.record import TrainingCurve
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines.protocol import Engine
from harness.training.schedule import learning_rate
from harness.training.selection import Selection

# Losses stay on the device until they are exchanged. Several ranks do that, and tell whether one was asked to stop,
# this often: seldom enough not to matter, often enough to write a checkpoint before a cluster's patience ends.
EXCHANGE_EVERY_STEPS = 5
# One rank alone waits for its device this often, to show how far it is.
SHOW_EVERY_SECONDS = 0.1


class Diverged(Exception):
    """The loss of a step is not finite. `curve` ends with it."""

    def __init__(self, curve: TrainingCurve) -> None:
        super().__init__(f"the loss of step {len(curve)} is {curve.losses[-1]}")
        self.curve = curve


@dataclass(frozen=True)
class Pending:
    """A step whose [loss, accuracy] was not read yet. began, ended: marks of the clock."""

    indices: np.ndarray
    result: Tensor
    began: Mark
    ended: Mark


def train(
    engine: Engine,
    batches: TrainingBatches,
    optimizer: OptimizerConfig,
    selection: Selection,
    checkpoints: Checkpoints,
    clock: Clock,
    on_progress: Callable[[int, int, float, float], None],
) -> tuple[TrainingCurve, int | None]:
    """Train on the batches of every epoch, from the last checkpoint where there is one.

    optimizer: the engine's, whose schedule is followed. selection: of epochs; it says when training ends early, and
    what the engine is left with.

    Returns the curve and the step that training resumed from. on_progress receives steps done, steps in all, the last
    loss, and the fraction of correct predictions since it was last called.
    Raises Diverged where a loss is not finite, KeyboardInterrupt after a checkpoint where a signal asked to stop.
    """
    world, every = batches.world, batches.of_all_epochs()
    with checkpoints.signals.postponed() as asked_to_stop:
        saved = checkpoints.resume(engine, world, selection, lambda: batches.local(every[0])) if every else None
        curve, earlier_seconds = (saved.curve, saved.seconds) if saved else (TrainingCurve(), 0.0)
        resumed_from, started = len(curve) or None, clock.now()
        pending: list[Pending] = []
        shown = time.monotonic()
        for done, indices in enumerate(every[len(curve) :], start=len(curve) + 1):
            if selection.is_over:
                break
            began = clock.mark()
            engine.set_learning_rate(learning_rate(optimizer, done - 1, len(every)))
            result = engine.step(batches.local(indices, step=done - 1), len(indices))
            pending.append(Pending(indices, result, began, clock.mark()))
            is_last, is_due = done == len(every), checkpoints.due(done)
            is_judged = selection.is_asked_for and done % batches.steps_of_epoch == 0
            if world.size > 1:
                exchange = done % EXCHANGE_EVERY_STEPS == 0
            else:
                exchange = time.monotonic() - shown >= SHOW_EVERY_SECONDS or asked_to_stop()
            if is_last or is_due or is_judged or exchange:
                losses, accuracies, stop = _exchange(world, pending, asked_to_stop())
                clock.steps += [
                    batches.measured(step.indices, clock.between(step.began, step.ended)) for step in pending
                ]
                pending.clear()
                curve.losses += losses
                curve.accuracies += accuracies
                stop_if_diverged(curve, since=len(curve) - len(losses))
                world.note(f"training step {done}")
                on_progress(done, len(every), losses[-1], fmean(accuracies))
                if is_judged:
                    selection.after_epoch(engine)
                shown = time.monotonic()
                if stop or (is_due and not is_last):
                    checkpoints.save(engine, world, curve, selection, earlier_seconds + clock.now() - started)
                if stop:
                    raise KeyboardInterrupt
        selection.finish(engine)
    clock.phases["train"] = clock.phases.get("train", 0.0) + earlier_seconds
    return curve, resumed_from


def _exchange(world: World, pending: list[Pending], asked_to_stop: bool) -> tuple[list[float], list[float], bool]:
    """Losses and accuracies of the pending steps over all ranks, and whether any rank was asked to stop."""
    asked = torch.tensor([[float(asked_to_stop), 0.0]], device=world.device)
    results = torch.cat([torch.stack([step.result for step in pending]), asked])
    *steps, (wishes, _) = world.sum(results.double()).tolist()
    return [loss for loss, _ in steps], [accuracy for _, accuracy in steps], wishes > 0


def stop_if_diverged(curve: TrainingCurve, since: int = 0) -> None:
    """Raises Diverged where a loss is not finite. since: the first step that was not looked at yet."""
    for step in range(since, len(curve)):
        if not math.isfinite(curve.losses[step]):
            raise Diverged(TrainingCurve(losses=curve.losses[: step + 1], accuracies=curve.accuracies[: step + 1]))
