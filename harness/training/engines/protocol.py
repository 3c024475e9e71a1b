"""What moves gradients and holds state: the short protocol that every engine follows.

Engines see only the suffix, always call it through their wrapper, and never know that a prefix exists. Precision,
master weights and ranks live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from harness.config.schema import OptimizerConfig
from harness.model.packing import PackedBatch
from harness.model.split import Suffix
from harness.training.micro_batch import MicroBatch


class Engine(Protocol):
    """not_captured: why steps run as they are, kernel by kernel; None where they are captured as graphs.

    graphs: how many were captured so far.
    """

    @property
    def not_captured(self) -> str | None: ...

    @property
    def graphs(self) -> int: ...

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        """Take over the suffix: place it, wrap it, make the optimizer of its trained parameters."""
        ...

    def set_learning_rate(self, rate: float) -> None:
        """Of the steps to come; that of the configuration where it was never called."""
        ...

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        """One optimizer step; returns this rank's part of [loss, accuracy], both before the update.

        The micro-batches are on the host. The loss is the weighted sum of the cross-entropies of all ranks' rows over
        `global_count`, however the global batch is cut into ranks and micro-batches.
        """
        ...

    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        """Logits [rows, classes] without gradient; every rank calls it equally often."""
        ...

    def save(self) -> dict[str, Tensor]:
        """Trained parameters and optimizer state, complete and on the CPU, on the first rank; every rank calls it.

        By name: `value/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME` for each trained parameter of the suffix, and
        `optimizer_steps`. The same for every engine and number of ranks, so that one can go on where another stopped.
        """
        ...

    def values(self) -> dict[str, Tensor]:
        """A copy of the trained parameters by name, complete and on the CPU, on the first rank; every rank calls it."""
        ...

    def set_values(self, values: dict[str, Tensor]) -> None:
        """Take over what `values` gave, on the first rank; every rank calls it. The optimizer's state stays."""
        ...

    def load(self, state: dict[str, Tensor], warm_up: Sequence[MicroBatch]) -> None:
        """Take over what `save` gave. warm_up: some batch, for engines whose optimizer gets its state in a step."""
        ...

    def close(self) -> None:
        """Free what `prepare` took."""
        ...
