"""The training batches of a run: one global order, of which every rank takes its slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.config.schema import TrainingConfig
from harness.data.batching import global_batches, micro_batches
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.measure.clock import Step
from harness.training.engines.protocol import MicroBatch


@dataclass(frozen=True)
class TrainingBatches:
    """The examples of the training part, and how they are cut into batches."""

    features: Features
    examples: Examples
    config: TrainingConfig
    seed: int
    world: World

    def of_epoch(self, epoch: int) -> list[np.ndarray]:
        """The indices of each global batch."""
        config = self.config
        return global_batches(len(self.examples), config.batch_size, self.seed, epoch, config.drop_last)

    def of_all_epochs(self) -> list[np.ndarray]:
        return [indices for epoch in range(self.config.epochs) for indices in self.of_epoch(epoch)]

    def local(self, indices: np.ndarray) -> list[MicroBatch]:
        """This rank's slice of a global batch, as `Engine.step` takes it."""
        world = self.world
        size = self.config.micro_batch_size or -(-self.config.batch_size // world.size)
        return [self._micro_batch(*part) for part in micro_batches(indices, size, world.rank, world.size)]

    def measured(self, indices: np.ndarray, seconds: float) -> Step:
        """What this rank did of a global batch in `seconds`."""
        counted = indices[self.world.rank :: self.world.size]
        width, examples = self.features.width, self.examples
        return Step(
            seconds,
            examples=len(counted),
            real_tokens=int(examples.real_lengths[counted].sum()),
            padded_tokens=width * len(counted) if width else int(examples.lengths[counted].sum()),
        )

    def _micro_batch(self, indices: np.ndarray, counts: bool) -> MicroBatch:
        inputs, batch = self.features.batch(indices)
        labels = torch.from_numpy(self.examples.labels[indices]).to(self.world.device)
        return MicroBatch(inputs, batch, labels, torch.full_like(labels, counts, dtype=torch.float32))
