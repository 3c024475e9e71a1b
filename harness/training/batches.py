"""The training batches of a run: one global order, of which every rank takes its slice."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from harness.config.schema import TrainingConfig
from harness.data.batching import global_batches, micro_batches
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.measure.clock import Step
from harness.training.buckets import Buckets
from harness.training.micro_batch import MicroBatch

# Keeps the draws of dropout apart from those of the order of examples, which are made of seed and epoch.
DROPOUT = 1


@dataclass(frozen=True)
class TrainingBatches:
    """The examples of the training part, and how they are cut into batches.

    few_shapes: fill batches up to one of a few shapes; None: on a GPU, where steps are captured. hidden: width of the
    hidden states that the head reads, for their dropout.
    """

    features: Features
    examples: Examples
    config: TrainingConfig
    seed: int
    world: World
    few_shapes: bool | None = None
    hidden: int = 0

    def of_epoch(self, epoch: int) -> list[np.ndarray]:
        """The indices of each global batch."""
        config = self.config
        return global_batches(len(self.examples), config.batch_size, self.seed, epoch, config.drop_last)

    def of_all_epochs(self) -> list[np.ndarray]:
        return [indices for epoch in range(self.config.epochs) for indices in self.of_epoch(epoch)]

    @functools.cached_property
    def steps_of_epoch(self) -> int:
        """The same in each."""
        return len(self.of_epoch(0))

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.config.epochs * self.steps_of_epoch

    def local(self, indices: np.ndarray, step: int = 0) -> list[MicroBatch]:
        """This rank's slice of a global batch, as `Engine.step` takes it.

        step: its number. Dropout is drawn by seed and step for the global batch, so that it is the same however that is
        cut into ranks and micro-batches, and when a run resumes.
        """
        dropout = self._dropout(indices, step) if self.config.dropout else None
        return [self._micro_batch(part, counts, dropout) for part, counts in self._parts(indices)]

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

    def _parts(self, indices: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        world = self.world
        size = self.config.micro_batch_size or -(-self.config.batch_size // world.size)
        return micro_batches(indices, size, world.rank, world.size)

    def _dropout(self, indices: np.ndarray, step: int) -> dict[int, np.ndarray]:
        """Of each of the examples: [hidden] float32, 0 for what is dropped, else what keeps the mean (Srivastava et
        al., JMLR, 2014)."""
        drawn = np.random.default_rng([self.seed, step, DROPOUT]).random((len(indices), self.hidden), dtype=np.float32)
        rate = self.config.dropout
        return dict(zip(indices, np.where(drawn < rate, 0, 1 / (1 - rate)).astype(np.float32), strict=True))

    def _micro_batch(self, indices: np.ndarray, counts: bool, dropout: dict[int, np.ndarray] | None) -> MicroBatch:
        shape = self._buckets.shape(self.features.lengths[indices]) if self._buckets else None
        weights = None if self.weights is None else self.weights[indices]
        factors = None if dropout is None else np.stack([dropout[index] for index in indices])
        labels, smoothing = self.examples.labels[indices], self.config.label_smoothing
        return MicroBatch.of(self.features, indices, labels, counts, shape, weights, factors, smoothing)

    @functools.cached_property
    def weights(self) -> np.ndarray | None:
        """[examples], the factor of each one's loss: examples / (classes * examples of its class), as in scikit-learn
        (King and Zeng, Political Analysis, 2001), over the classes that occur; None where all are 1."""
        if self.config.class_weights == "none":
            return None
        _, class_of, counts = np.unique(self.examples.labels, return_inverse=True, return_counts=True)
        return (len(class_of) / (len(counts) * counts))[class_of]

    @functools.cached_property
    def _buckets(self) -> Buckets | None:
        """Of this rank's micro-batches in all epochs; None where each has its own shape, or all have the same."""
        few = self.world.device.type == "cuda" if self.few_shapes is None else self.few_shapes
        if not few or self.features.width:
            return None
        parts = [part for indices in self.of_all_epochs() for part, _ in self._parts(indices)]
        return Buckets.of(self.features.lengths[part] for part in parts)
