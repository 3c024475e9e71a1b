"""How many tokens a pass without gradients computes at once, and what happens where they are too many.

On a GPU as many as a quarter of its free memory holds; on a CPU always equally many, which its kernels are tuned for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from harness.config.schema import Precision
from harness.data.batching import tokens_at_once
from harness.distributed.process_group import World
from harness.measure.memory import free_bytes, is_out_of_memory

# Of the memory that is free when a phase begins: the rest is for weights still to come, and for what is not foreseen.
SHARE = 0.25

# Rows of a batch: the indices of examples, or consecutive rows of the store.
Rows = TypeVar("Rows", np.ndarray, range)
Result = TypeVar("Result")


def bytes_per_token(hidden: int, precision: Precision) -> int:
    """What a token takes at the peak of a forward pass without gradients: hidden x 2 x (2 x stream + 10 x element).

    stream: bytes of a number of the residual stream, of which there are two at that point, before and after a norm.
    element: bytes of a number in products; in the MLP there are ten times as many as hidden ones (its input, both sides
    of its activation, its output), in attention too (queries, keys and values as they are and by rows, and the result).
    2 x: for the copies of tokens that rows share, padding between rows, and the libraries' workspace.
    """
    element = {"bf16": 2, "fp64": 8}.get(precision, 4)
    stream = max(element, 4)
    return hidden * 2 * (2 * stream + 10 * element)


def affordable_tokens(device: torch.device, hidden: int, precision: Precision) -> int:
    """How many tokens of a model of that width SHARE of the free memory holds, at most `tokens_at_once`.

    On a GPU a power of two, so that a little more or less of free memory changes no batch, hence no bit of a result.
    """
    most = tokens_at_once(device.type)
    if device.type == "cpu":
        return most
    affordable = max(1, int(SHARE * free_bytes(device)) // bytes_per_token(hidden, precision))
    return min(most, 2 ** (affordable.bit_length() - 1))


@dataclass
class TokenBudget:
    """For the passes of one phase of a run.

    tokens: what a batch may hold, padding included. warn: is told the first time that memory runs out.
    halvings: how often each batch is cut in halves, since memory ran out.
    """

    tokens: int
    device: torch.device
    warn: Callable[[str], None] = lambda text: None
    halvings: int = field(default=0, init=False)

    @classmethod
    def of(
        cls, world: World, hidden: int, precision: Precision, warn: Callable[[str], None] = lambda text: None
    ) -> TokenBudget:
        """The same on every rank, each of which must call it, so that all make the same batches."""
        return cls(min(world.gather(affordable_tokens(world.device, hidden, precision))), world.device, warn)

    def in_parts(self, batches: Iterable[Rows], compute: Callable[[Rows], Result]) -> Iterator[tuple[Rows, Result]]:
        """What `compute` makes of the batches: of each in full or, where memory runs out, of its parts in order.

        Once it has run out for a batch, it and those after it are cut in halves, and again, down to single rows.
        Raises what `compute` does where memory runs out for one row.
        """
        for batch in batches:
            parts = [batch]
            for _ in range(self.halvings):
                parts = _halved(parts)
            while parts:
                try:
                    result = compute(parts[0])
                except (RuntimeError, MemoryError) as problem:
                    if len(parts[0]) == 1 or not is_out_of_memory(problem):
                        raise
                else:
                    yield parts.pop(0), result
                    continue
                # Not where the problem is handled: it refers to the tensors of the pass that failed.
                parts = _halved(parts)
                self._note_halving(len(batch))

    def _note_halving(self, rows: int) -> None:
        if not self.halvings:
            free = free_bytes(self.device) / 1e9
            self.warn(
                f"out of memory at a batch of {rows} rows without gradients ({free:.1f} GB are free now): such batches "
                "are cut in halves from here on"
            )
        self.halvings += 1


def _halved(parts: list[Rows]) -> list[Rows]:
    """Each part of two rows or more as its two halves."""
    halves = []
    for part in parts:
        middle = len(part) // 2
        halves += [part[:middle], part[middle:]] if middle else [part]
    return halves
