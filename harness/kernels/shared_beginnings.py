"""Texts that begin alike: under a causal mask their common first tokens have the same hidden states, computed once.

docs/performance.md says what it saves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from harness.model.packing import TOKENS_MULTIPLE, PackedBatch, slots_of


@dataclass(frozen=True, kw_only=True)
class SharedBeginnings(PackedBatch):
    """Rows whose flat sequence holds the tokens that a row shares with the one before it only once.

    sources: [tokens of all rows] int64, where each token stands in the flat sequence.
    distinct: [flat tokens] int64, which of the tokens of all rows the flat sequence holds.
    """

    sources: Tensor
    distinct: Tensor

    @classmethod
    def of(cls, lengths: np.ndarray, shared: np.ndarray) -> PackedBatch:
        """Rows of `lengths` tokens, each of which begins with the first `shared` tokens of the row before it."""
        batch = PackedBatch.packed(lengths)
        if not shared.any():
            return batch
        sources, count = [np.arange(0)], 0
        for length, common in zip(lengths, shared, strict=True):
            sources.append(np.concatenate([sources[-1][:common], count + np.arange(length - common)]))
            count += length - common
        of_all = np.concatenate(sources)
        _, first_met = np.unique(of_all, return_index=True)
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        values |= {"slots": slots_of(lengths), "filler": -count % TOKENS_MULTIPLE}
        return cls(**values, sources=torch.from_numpy(of_all), distinct=torch.from_numpy(first_met))

    def pack(self, tokens: Tensor) -> Tensor:
        return super().pack(tokens.index_select(0, self.distinct))

    def unpack(self, flat: Tensor) -> Tensor:
        return flat.index_select(0, self.sources)

    def unshared(self, flat: Tensor) -> tuple[Tensor, PackedBatch]:
        batch = PackedBatch.packed(self.lengths.cpu().numpy()).to(flat.device)
        return batch.pack(self.unpack(flat)), batch
