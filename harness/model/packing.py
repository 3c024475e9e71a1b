"""Hidden states are flat, [tokens, hidden]: the rows of a batch stand one after the other without padding between them,
and `Rows` says where each begins. Only attention looks at rows; it alone works on a padded rectangle.

Where no token sees those after it, rows that begin alike have the same hidden states there: those of the second row are
not in the flat tensor at all (`Rows.sharing`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

# A CPU's matrix library compiles and keeps a kernel for each shape it meets: batches of any number of tokens would
# cost more than half of each step and hundreds of MB. Rounded up, they meet a few dozen shapes.
TOKENS_MULTIPLE = 32


@dataclass(frozen=True)
class Rows:
    """Where the rows of a batch lie in a flat sequence of tokens.

    starts, lengths: [rows] int64, where each row begins among the tokens of all rows, and how many of its tokens are
    attended to.
    width: of the rectangle [rows, width] that attention works on.
    cells: [tokens of all rows] int64, each token's cell of that rectangle; None where the tokens fill it.
    filler: how many tokens that belong to no row follow the last one (see `TOKENS_MULTIPLE`).
    sources: [tokens of all rows] int64, where each stands in the flat sequence; None where all do in their order.
    own: [tokens] int64, which of the tokens of all rows the flat sequence holds.
    """

    starts: Tensor
    lengths: Tensor
    width: int
    cells: Tensor | None
    filler: int = 0
    sources: Tensor | None = None
    own: Tensor | None = None

    @classmethod
    def packed(cls, lengths: np.ndarray) -> Rows:
        """Rows without padding between them. The flat tensor that goes with them is made by `pack`."""
        width, count = int(lengths.max()), int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        filler = 0 if width == 1 else -count % TOKENS_MULTIPLE
        if (lengths == width).all() and not filler:
            return cls(torch.from_numpy(starts), torch.from_numpy(lengths), width, None)
        return cls(*map(torch.from_numpy, (starts, lengths)), width, _cells(lengths), filler)

    @classmethod
    def sharing(cls, lengths: np.ndarray, shared: np.ndarray) -> Rows:
        """Rows of which each begins with the first `shared` tokens of the row before it."""
        rows = cls.packed(lengths)
        if not shared.any():
            return rows
        sources, count = [np.arange(0)], 0
        for length, common in zip(lengths, shared, strict=True):
            sources.append(np.concatenate([sources[-1][:common], count + np.arange(length - common)]))
            count += length - common
        of_all = np.concatenate(sources)
        _, first_met = np.unique(of_all, return_index=True)
        return replace(
            rows,
            cells=_cells(lengths),
            filler=-count % TOKENS_MULTIPLE,
            sources=torch.from_numpy(of_all),
            own=torch.from_numpy(first_met),
        )

    @classmethod
    def padded(cls, lengths: np.ndarray, width: int) -> Rows:
        """Rows that padding, which nobody attends to, fills up to `width` tokens."""
        return cls(torch.arange(len(lengths)) * width, torch.from_numpy(lengths), width, None)

    def to(self, device: torch.device) -> Rows:
        if self.lengths.device == device:
            return self
        places = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: place.to(device, non_blocking=True) for name, place in places.items() if torch.is_tensor(place)}
        return replace(self, **moved)

    def pack(self, tokens: Tensor) -> Tensor:
        """[tokens of all rows, ...] -> flat: what rows share once, and zeros for the filler tokens behind them."""
        flat = tokens if self.own is None else tokens.index_select(0, self.own)
        return torch.cat([flat, flat.new_zeros(self.filler, *flat.shape[1:])]) if self.filler else flat

    def unpack(self, flat: Tensor) -> Tensor:
        """Flat [tokens, ...] -> [tokens of all rows, ...]."""
        if self.sources is not None:
            return flat.index_select(0, self.sources)
        return flat if self.cells is None else flat[: len(self.cells)]

    def apart(self, flat: Tensor) -> tuple[Tensor, Rows]:
        """The same where every row has its tokens to itself."""
        if self.sources is None:
            return flat, self
        rows = Rows.packed(self.lengths.cpu().numpy()).to(flat.device)
        return rows.pack(self.unpack(flat)), rows

    def positions(self) -> Tensor:
        """The position of each token in its row, [tokens]."""
        if self.cells is None:
            return torch.arange(self.width, device=self.lengths.device).repeat(len(self.lengths))
        return self.pack(self.cells % self.width)

    def rectangle(self, flat: Tensor) -> Tensor:
        """[tokens, hidden] -> [rows, width, hidden], zero where there is no token."""
        rows = len(self.lengths)
        if self.cells is not None:
            blank = flat.new_zeros(rows * self.width, flat.shape[1])
            flat = blank.index_copy(0, self.cells, self.unpack(flat))
        return flat.view(rows, self.width, -1)

    def flatten(self, rectangle: Tensor) -> Tensor:
        """[rows, width, hidden] -> [tokens, hidden]."""
        flat = rectangle.flatten(0, 1)
        return flat if self.cells is None else self.pack(flat.index_select(0, self.cells))

    @property
    def fullness(self) -> float:
        """Which part of the rectangle holds tokens."""
        return 1.0 if self.cells is None else len(self.cells) / (len(self.lengths) * self.width)

    def attended(self) -> Tensor:
        """Which cells of the rectangle hold a token that is attended to, bool [rows, width]."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]


def _cells(lengths: np.ndarray) -> Tensor:
    """The cell of each token of all rows, in a rectangle as wide as the longest row."""
    starts = np.cumsum(lengths) - lengths
    return torch.from_numpy(
        np.repeat(np.arange(len(lengths)) * lengths.max() - starts, lengths) + np.arange(lengths.sum())
    )
