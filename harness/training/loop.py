"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import torch

from harness.distributed.process_group import World
from harness.measure.clock import Clock
from harness.results.record import TrainingCurve
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines.protocol import Engine

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
    batches: TrainingBatches,
    checkpoints: Checkpoints,
    clock: Clock,
    on_progress: Callable[[int, int, float, float], None],
) -> tuple[TrainingCurve, int | None]:
    """Train on the batches of every epoch, from the last checkpoint where there is one.

    Returns the curve and the step that training resumed from. on_progress receives steps done, steps in all, the last
    loss, and the fraction of correct predictions since it was last called.
    Raises Diverged where a loss is not finite, KeyboardInterrupt after a checkpoint where a signal asked to stop.
    """
    world, every = batches.world, batches.of_all_epochs()
    with checkpoints.signals.postponed() as asked_to_stop:
        saved = checkpoints.resume(engine, world, lambda: batches.local(every[0])) if every else None
        curve, earlier_seconds = (saved.curve, saved.seconds) if saved else (TrainingCurve(), 0.0)
        resumed_from, started = len(curve) or None, clock.now()
        pending: list[torch.Tensor] = []
        for done, indices in enumerate(every[len(curve) :], start=len(curve) + 1):
            step_started = clock.now()
            pending.append(engine.step(batches.local(indices), len(indices)))
            clock.steps.append(batches.measured(indices, clock.now() - step_started))
            last, due, alone = done == len(every), checkpoints.due(done), world.size == 1
            if last or due or done % EXCHANGE_EVERY_STEPS == 0 or (alone and asked_to_stop()):
                losses, accuracies, stop = _exchange(world, pending, asked_to_stop())
                pending.clear()
                curve.losses += losses
                curve.accuracies += accuracies
                _stop_if_diverged(curve, since=len(curve) - len(losses))
                world.note(f"training step {done}")
                on_progress(done, len(every), losses[-1], fmean(accuracies))
                if stop or (due and not last):
                    checkpoints.save(engine, world, curve, earlier_seconds + clock.now() - started)
                if stop:
                    raise KeyboardInterrupt
    clock.phases["train"] = clock.phases.get("train", 0.0) + earlier_seconds
    return curve, resumed_from


def _exchange(world: World, pending: list[torch.Tensor], asked_to_stop: bool) -> tuple[list[float], list[float], bool]:
    """Losses and accuracies of the pending steps over all ranks, and whether any rank was asked to stop."""
    asked = torch.tensor([[float(asked_to_stop), 0.0]], device=world.device)
    *steps, (wishes, _) = world.sum(torch.cat([torch.stack(pending), asked]).double()).tolist()
    return [loss for loss, _ in steps], [accuracy for _, accuracy in steps], wishes > 0


def _stop_if_diverged(curve: TrainingCurve, since: int) -> None:
    for step in range(since, len(curve)):
        if not math.isfinite(curve.losses[step]):
            raise Diverged(TrainingCurve(losses=curve.losses[: step + 1], accuracies=curve.accuracies[: step + 1]))
