"""The tensors of a prefix, loaded on first use; never, where stored features serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from harness import kernels
from harness.config.schema import Precision
from harness.measure.memory import return_freed_memory
from harness.model.split import Prefix


@dataclass
class PrefixLoader:
    """fill: gives a stage of the prefix, by name, its parameters; None where they are there already.

    plain: without kernels.
    """

    prefix: Prefix
    fill: Callable[[str], None] | None
    device: torch.device
    precision: Precision
    plain: bool = False
    is_loaded: bool = False

    def load(self) -> Prefix:
        """The prefix with its parameters on the device, and with its kernels."""
        if not self.is_loaded:
            self.prefix.place(self.device, self.precision, self.fill)
            if not self.plain:
                kernels.optimize(self.prefix, self.device, self.precision)
            self.is_loaded = True
        return self.prefix

    def release(self) -> None:
        """Let go of the tensors: the prefix cannot be loaded again."""
        self.fill, self.is_loaded = None, False  # `fill` holds the modules that kernels replaced
        kernels.restore(self.prefix)
        self.prefix.release()
        return_freed_memory()
