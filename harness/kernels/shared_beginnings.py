"""Texts that begin alike: under a causal mask their common first tokens have the same hidden states, computed once.

docs/performance.md says what it saves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from harness.model.packing import TOKENS_MULTIPLE, BatchShape, PackedBatch


@dataclass(frozen=True, kw_only=True)
class SharedBeginnings(PackedBatch):
    """Rows whose flat sequence holds the tokens that a row shares with the one before it only once.

    sources: [tokens of all rows] int64, where each token stands in the flat sequence.
    distinct: [flat tokens] int64, which of the tokens of all rows the flat sequence holds. filler: behind those.
    `slots` are those of the tokens of all rows.
    """

    sources: Tensor
    distinct: Tensor
    filler: int

    @classmethod
    def of(cls, lengths: np.ndarray, shared: np.ndarray) -> PackedBatch:
        """Rows of `lengths` tokens, each of which begins with the first `shared` tokens of the row before it."""
        if not shared.any():
            return PackedBatch.packed(lengths)
        sources, count = [np.arange(0)], 0
        for length, common in zip(lengths, shared, strict=True):
            sources.append(np.concatenate([sources[-1][:common], count + np.arange(length - common)]))
            count += length - common
        of_all = np.concatenate(sources)
        _, first_met = np.unique(of_all, return_index=True)
        batch = PackedBatch.packed(lengths, BatchShape(len(lengths), int(lengths.sum()), int(lengths.max())))
        return cls(
            **{field.name: getattr(batch, field.name) for field in fields(batch)},
            sources=torch.from_numpy(of_all),
            distinct=torch.from_numpy(first_met),
            filler=-count % TOKENS_MULTIPLE,
        )

    def pack(self, tokens: Tensor) -> Tensor:
        distinct = tokens.index_select(0, self.distinct)
        return torch.cat([distinct, tokens.new_zeros(self.filler, *tokens.shape[1:])])

    def unpack(self, flat: Tensor) -> Tensor:
        return flat.index_select(0, self.sources)

    def spread(self, flat: Tensor) -> Tensor:
        return self.unpack(flat)

    def gathered(self, spread: Tensor) -> Tensor:
        return self.pack(spread)

    def positions(self) -> Tensor:
        return self.pack(super().positions())

    def rectangle(self, flat: Tensor) -> Tensor:
        return super().rectangle(self.unpack(flat))

    def flatten(self, rectangle: Tensor) -> Tensor:
        return self.pack(super().flatten(rectangle))

    def unshared(self, flat: Tensor) -> tuple[Tensor, PackedBatch]:
        batch = PackedBatch.packed(self.lengths.cpu().numpy()).to(flat.device)
        return batch.pack(self.unpack(flat)), batch
