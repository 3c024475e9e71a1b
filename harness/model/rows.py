"""Hidden states are flat, [tokens, hidden]: the rows of a batch stand one after the other without padding between them,
and `Rows` says where each begins. Only attention looks at rows; it alone works on a padded rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A CPU's matrix library compiles and keeps a kernel for each shape it meets: batches of any number of tokens would
# cost more than half of each step and hundreds of MB. Rounded up, they meet a few dozen shapes.
TOKENS_MULTIPLE = 32


@dataclass(frozen=True)
class Rows:
    """Where the rows of a batch lie in a flat sequence of tokens.

    starts, lengths: [rows] int64, the first token of each row and how many tokens of it are attended to.
    width: of the rectangle [rows, width] that attention works on.
    cells: [tokens] int64, each token's cell of that rectangle; None where the tokens fill it.
    filler: how many tokens that belong to no row follow the last one (see `TOKENS_MULTIPLE`).
    """

    starts: Tensor
    lengths: Tensor
    width: int
    cells: Tensor | None
    filler: int = 0

    @classmethod
    def packed(cls, lengths: np.ndarray) -> Rows:
        """Rows without padding between them. The flat tensor that goes with them is made by `fill`."""
        width, count = int(lengths.max()), int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        filler = 0 if width == 1 else -count % TOKENS_MULTIPLE
        if (lengths == width).all() and not filler:
            return cls(torch.from_numpy(starts), torch.from_numpy(lengths), width, None)
        cells = np.repeat(np.arange(len(lengths)) * width - starts, lengths) + np.arange(count)
        return cls(*map(torch.from_numpy, (starts, lengths)), width, torch.from_numpy(cells), filler)

    @classmethod
    def padded(cls, lengths: np.ndarray, width: int) -> Rows:
        """Rows that padding, which nobody attends to, fills up to `width` tokens."""
        return cls(torch.arange(len(lengths)) * width, torch.from_numpy(lengths), width, None)

    def to(self, device: torch.device) -> Rows:
        if self.lengths.device == device:
            return self
        cells = None if self.cells is None else self.cells.to(device, non_blocking=True)
        starts, lengths = (part.to(device, non_blocking=True) for part in (self.starts, self.lengths))
        return Rows(starts, lengths, self.width, cells, self.filler)

    def each(self) -> list[Rows]:
        """Every row by itself."""
        start = self.starts.new_zeros(1)
        return [Rows(start, length, int(length), None) for length in self.lengths.split(1)]

    def fill(self, flat: Tensor) -> Tensor:
        """[tokens, ...] of the rows alone -> with zeros for the filler tokens behind them."""
        return torch.cat([flat, flat.new_zeros(self.filler, *flat.shape[1:])]) if self.filler else flat

    def positions(self) -> Tensor:
        """The position of each token in its row, [tokens]."""
        if self.cells is None:
            return torch.arange(self.width, device=self.lengths.device).repeat(len(self.lengths))
        return self.fill(self.cells % self.width)

    def rectangle(self, flat: Tensor) -> Tensor:
        """[tokens, hidden] -> [rows, width, hidden], zero where there is no token."""
        rows = len(self.lengths)
        if self.cells is not None:
            blank = flat.new_zeros(rows * self.width, flat.shape[1])
            flat = blank.index_copy(0, self.cells, flat[: len(self.cells)])
        return flat.view(rows, self.width, -1)

    def flatten(self, rectangle: Tensor) -> Tensor:
        """[rows, width, hidden] -> [tokens, hidden]."""
        flat = rectangle.flatten(0, 1)
        return flat if self.cells is None else self.fill(flat.index_select(0, self.cells))

    def attended(self) -> Tensor:
        """Which cells of the rectangle hold a token that is attended to, bool [rows, width]."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]
