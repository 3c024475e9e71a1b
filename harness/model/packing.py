"""Batches without padding: hidden states are flat, [tokens, hidden], the rows of a batch one after the other.

`PackedBatch` says where each row lies. Only attention and the readout look at rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

# A CPU's matrix library compiles and keeps a kernel for each shape: flat batches are filled up to a multiple of this,
# so that few shapes occur (docs/performance.md).
TOKENS_MULTIPLE = 32


@dataclass(frozen=True)
class PackedBatch:
    """Where the rows of a batch lie in the flat sequence of its tokens.

    starts: [rows] int64, the first token of each row. lengths: [rows] int64, its attended tokens.
    width: of the rectangle [rows, width] that attention works on.
    slots: [tokens] int64, the slot of each token in that rectangle; None where the tokens fill it.
    filler: tokens that belong to no row, at the end of the sequence (see TOKENS_MULTIPLE).
    """

    starts: Tensor
    lengths: Tensor
    width: int
    slots: Tensor | None
    filler: int = 0

    @classmethod
    def packed(cls, lengths: np.ndarray) -> PackedBatch:
        """Rows of `lengths` tokens without padding. `pack` makes the flat tensor that goes with them."""
        width, count = int(lengths.max()), int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        filler = 0 if width == 1 else -count % TOKENS_MULTIPLE
        slots = None if (lengths == width).all() and not filler else slots_of(lengths)
        return PackedBatch(torch.from_numpy(starts), torch.from_numpy(lengths), width, slots, filler)

    @classmethod
    def padded(cls, lengths: np.ndarray, width: int) -> PackedBatch:
        """Rows filled up to `width` tokens with padding that is not attended to."""
        return PackedBatch(torch.arange(len(lengths)) * width, torch.from_numpy(lengths), width, None)

    def to(self, device: torch.device) -> Self:
        if self.lengths.device == device:
            return self
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in values.items() if torch.is_tensor(value)}
        return replace(self, **moved)

    def pack(self, tokens: Tensor) -> Tensor:
        """[tokens of all rows, ...] -> flat [tokens, ...], with zeros for the filler."""
        return torch.cat([tokens, tokens.new_zeros(self.filler, *tokens.shape[1:])]) if self.filler else tokens

    def unpack(self, flat: Tensor) -> Tensor:
        """Flat [tokens, ...] -> [tokens of all rows, ...]."""
        return flat if self.slots is None else flat[: len(self.slots)]

    def unshared(self, flat: Tensor) -> tuple[Tensor, PackedBatch]:
        """The same with a copy of every token for each row that holds it (see kernels/shared_beginnings.py)."""
        return flat, self

    def positions(self) -> Tensor:
        """The position of each token in its row, [tokens]."""
        if self.slots is None:
            return torch.arange(self.width, device=self.lengths.device).repeat(len(self.lengths))
        return self.pack(self.slots % self.width)

    def rectangle(self, flat: Tensor) -> Tensor:
        """[tokens, hidden] -> [rows, width, hidden], zero where there is no token."""
        rows = len(self.lengths)
        if self.slots is not None:
            blank = flat.new_zeros(rows * self.width, flat.shape[1])
            flat = blank.index_copy(0, self.slots, self.unpack(flat))
        return flat.view(rows, self.width, -1)

    def flatten(self, rectangle: Tensor) -> Tensor:
        """[rows, width, hidden] -> [tokens, hidden]."""
        flat = rectangle.flatten(0, 1)
        return flat if self.slots is None else self.pack(flat.index_select(0, self.slots))

    def attended(self) -> Tensor:
        """Which slots of the rectangle hold a token that is attended to, bool [rows, width]."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]

    @property
    def density(self) -> float:
        """The fraction of the rectangle that holds tokens."""
        return 1.0 if self.slots is None else len(self.slots) / (len(self.lengths) * self.width)


def slots_of(lengths: np.ndarray) -> Tensor:
    """The slot of each token in a rectangle as wide as the longest row, [tokens] int64."""
    starts = np.cumsum(lengths) - lengths
    return torch.from_numpy(
        np.repeat(np.arange(len(lengths)) * lengths.max() - starts, lengths) + np.arange(lengths.sum())
    )
