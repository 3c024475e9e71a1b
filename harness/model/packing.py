"""Batches without padding: hidden states are flat, [tokens, hidden], the rows of a batch one after the other.

`PackedBatch` says where each row lies. Only attention and the readout look at rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

# A CPU's matrix library compiles and keeps a kernel for each shape: flat batches are filled up to a multiple of this,
# so that few shapes occur (docs/performance.md).
TOKENS_MULTIPLE = 32


@dataclass(frozen=True)
class BatchShape:
    """What the shapes of all tensors of a packed batch follow from.

    rows: that hold tokens. tokens: of the flat sequence, filler included. width: no row is longer.
    filler_rows: what attention by cumulative lengths takes the filler for; none is longer than `width`, since a longer
    one gives NaN gradients there. is_full: whether every row is as long as `width` and there is no filler.
    """

    rows: int
    tokens: int
    width: int
    filler_rows: int = 0
    is_full: bool = False

    @classmethod
    def of(cls, lengths: np.ndarray) -> BatchShape:
        """The smallest that holds rows of `lengths` tokens."""
        rows, count, width = len(lengths), int(lengths.sum()), int(lengths.max())
        filler = 0 if width == 1 else -count % TOKENS_MULTIPLE
        return cls(rows, count + filler, width, -(-filler // width), count + filler == rows * width == count)

    @classmethod
    def padded(cls, rows: int, width: int) -> BatchShape:
        return cls(rows, rows * width, width, is_full=True)


@dataclass(frozen=True)
class PackedBatch:
    """Where the rows of a batch lie in the flat sequence of its tokens.

    starts: [rows] int64, the first token of each row. lengths: [rows] int64, its attended tokens.
    width: of the rectangle [rows, width] that attention works on: no row is longer.
    slots: [tokens] int64, the slot of each token in that rectangle, behind its end for filler; None where the tokens
    fill it.
    boundaries: [rows + filler rows + 1] int32, the cumulative lengths of all rows, padding and filler included.
    dropout: [rows, hidden] float32, factors of the hidden states that the head reads; None: all 1.
    first_position: of each row's tokens.
    """

    starts: Tensor
    lengths: Tensor
    width: int
    slots: Tensor | None
    boundaries: Tensor
    dropout: Tensor | None = field(default=None, kw_only=True)
    first_position: int = field(default=0, kw_only=True)

    @classmethod
    def packed(cls, lengths: np.ndarray, shape: BatchShape | None = None) -> PackedBatch:
        """Rows of `lengths` tokens without padding. `pack` makes the flat tensor that goes with them.

        shape: None: the smallest.
        """
        shape = shape or BatchShape.of(lengths)
        ends = np.cumsum(lengths)
        return PackedBatch(
            starts=torch.from_numpy(ends - lengths),
            lengths=torch.from_numpy(lengths),
            width=shape.width,
            slots=None if shape.is_full else torch.from_numpy(_slots_of(lengths, shape)),
            boundaries=torch.from_numpy(_boundaries_of(ends, shape)),
        )

    @classmethod
    def padded(cls, lengths: np.ndarray, width: int) -> PackedBatch:
        """Rows filled up to `width` tokens with padding that is not attended to."""
        boundaries = torch.arange(len(lengths) + 1, dtype=torch.int32) * width
        return PackedBatch(boundaries[:-1].long(), torch.from_numpy(lengths), width, None, boundaries)

    @classmethod
    def one_token_each(cls, rows: int, device: torch.device) -> PackedBatch:
        """Rows of one token, where only that is handed on."""
        boundaries = torch.arange(rows + 1, dtype=torch.int32, device=device)
        starts = boundaries[:-1].long()
        return PackedBatch(starts, torch.ones_like(starts), 1, None, boundaries)

    def to(self, device: torch.device) -> Self:
        if self.lengths.device == device:
            return self
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in values.items() if torch.is_tensor(value)}
        return replace(self, **moved)

    def pack(self, tokens: Tensor) -> Tensor:
        """[tokens of all rows, ...] -> flat [tokens, ...], with zeros for the filler, which is at the end."""
        filler = 0 if self.slots is None else len(self.slots) - len(tokens)
        return torch.cat([tokens, tokens.new_zeros(filler, *tokens.shape[1:])]) if filler else tokens

    def unpack(self, flat: Tensor) -> Tensor:
        """Flat [tokens, ...] -> [tokens of all rows, ...]."""
        return flat if self.slots is None else flat[: int(self.lengths.sum())]

    def unshared(self, flat: Tensor) -> tuple[Tensor, PackedBatch]:
        """The same with a copy of every token for each row that holds it (see kernels/shared_beginnings.py)."""
        return flat, self

    def spread(self, flat: Tensor) -> Tensor:
        """The same without the new batch: rows as `boundaries` says."""
        return flat

    def gathered(self, spread: Tensor) -> Tensor:
        """The inverse of `spread`."""
        return spread

    def positions(self) -> Tensor:
        """The position of each token in its row, [tokens]; the first for filler."""
        if self.slots is None:
            behind = torch.arange(self.width, device=self.lengths.device).repeat(self.lengths.shape[0])
        else:
            behind = self.slots % self.width
        return behind + self.first_position if self.first_position else behind

    def lengthened(self, length: int) -> PackedBatch:
        """The batch of the same rows with `length` tokens more before each: its tokens stand at `places_behind`."""
        rows, width, device = self.lengths.shape[0], self.width + length, self.lengths.device
        number = torch.arange(rows, device=device)
        starts = self.starts + number * length
        slots = None
        if self.slots is not None:
            new = torch.arange(length, device=device)
            slots = self.slots.new_empty(len(self.slots) + rows * length)
            # In the rectangle a token moves as far as in the flat sequence.
            slots = slots.index_copy(0, self.places_behind(length), self.slots + self._moved_by(length))
            slots = slots.index_copy(0, (starts[:, None] + new).flatten(), (number[:, None] * width + new).flatten())
        ends = torch.arange(self.boundaries.shape[0], dtype=torch.int32, device=device).clamp(max=rows)
        boundaries = self.boundaries + ends * length
        lengths = self.lengths + length
        return replace(self, starts=starts, lengths=lengths, width=width, slots=slots, boundaries=boundaries)

    def places_behind(self, length: int) -> Tensor:
        """Where each token stands in the flat sequence of `lengthened`, [tokens] int64."""
        moved_by = self._moved_by(length)
        return torch.arange(moved_by.shape[0], device=moved_by.device) + moved_by

    def _moved_by(self, length: int) -> Tensor:
        """[tokens] int64; filler stays behind the last row."""
        rows = self.lengths.shape[0]
        if self.slots is None:
            return torch.arange(1, rows + 1, device=self.lengths.device).repeat_interleave(self.width) * length
        return (self.slots // self.width + 1).clamp(max=rows) * length

    def rectangle(self, flat: Tensor) -> Tensor:
        """[tokens, hidden] -> [rows, width, hidden], zero where there is no token."""
        rows = self.lengths.shape[0]
        if self.slots is not None:
            end = rows * self.width
            flat = flat.new_zeros(end + 1, flat.shape[1]).index_copy(0, self.slots, flat)[:end]
        return flat.view(rows, self.width, -1)

    def flatten(self, rectangle: Tensor) -> Tensor:
        """[rows, width, hidden] -> [tokens, hidden]; for filler whatever stands in the last slot."""
        flat = rectangle.flatten(0, 1)
        return flat if self.slots is None else flat.index_select(0, self.slots.clamp(max=len(flat) - 1))

    def attended(self) -> Tensor:
        """Which slots of the rectangle hold a token that is attended to, bool [rows, width]."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]

    @property
    def density(self) -> float:
        """The fraction of the rectangle that holds tokens."""
        return 1.0 if self.slots is None else int(self.lengths.sum()) / (len(self.lengths) * self.width)


def _slots_of(lengths: np.ndarray, shape: BatchShape) -> np.ndarray:
    """[tokens] int64; of all filler the slot behind the last."""
    rows, count = len(lengths), int(lengths.sum())
    slots = np.full(shape.tokens, rows * shape.width)
    slots[:count] = np.repeat(np.arange(rows) * shape.width - (np.cumsum(lengths) - lengths), lengths) + np.arange(
        count
    )
    return slots


def _boundaries_of(ends: np.ndarray, shape: BatchShape) -> np.ndarray:
    """[rows + filler rows + 1] int32."""
    filler = np.minimum(ends[-1] + shape.width * np.arange(1, shape.filler_rows + 1), shape.tokens)
    return np.concatenate([[0], ends, filler]).astype(np.int32)
