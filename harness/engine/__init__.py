"""What moves gradients and holds state: the short protocol that every engine follows.

Engines see only the suffix, always call it through their wrapper, and never know that a prefix exists. Precision,
master weights and ranks live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from harness.config import OptimizerConfig
from harness.model.split import Suffix


@dataclass(frozen=True)
class MicroBatch:
    """Features [rows, width, hidden] (or token ids [rows, width]); lengths, labels, weights: [rows]."""

    features: Tensor
    lengths: Tensor
    labels: Tensor
    weights: Tensor


class Engine(Protocol):
    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        """Take over the suffix: place it, wrap it, make the optimizer of its trained parameters."""

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        """One optimizer step; returns this rank's part of the loss, a scalar.

        The loss is the weighted sum of the cross-entropies of all ranks' rows over `global_count`, however the
        global batch is cut into ranks and micro-batches.
        """

    def logits(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [rows, classes] without gradient; every rank calls it equally often."""

    def close(self) -> None:
        """Free what `prepare` took."""
