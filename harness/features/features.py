"""What the suffix is fed: features read from the store, or computed by the prefix each time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.data.batching import token_indices
from harness.data.encoding import Examples
from harness.features.residence import resident
from harness.model.packing import BatchShape, PackedBatch
from harness.model.split import Prefix


@dataclass(frozen=True)
class Features:
    """The features of one part of the data.

    flat: the rows of all examples, one after the other: [tokens] int64 token ids, or [tokens, hidden] stored hidden
    states; on the device where they fit there (see `residence`), else on the CPU.
    starts, lengths: int64 [examples], where the row of each lies. device: that they are wanted on.
    prefix: what computes the features from the rows each time; None where they are stored.
    width: what rows are padded to with padding that is not attended to (the plain path); None where there is none.
    """

    flat: Tensor
    starts: np.ndarray
    lengths: np.ndarray
    device: torch.device
    prefix: Prefix | None = None
    width: int | None = None

    @classmethod
    def computed(cls, prefix: Prefix, examples: Examples, device: torch.device, width: int | None = None) -> Features:
        """Runs the prefix each time."""
        ids = resident(torch.from_numpy(examples.token_ids.astype(np.int64)), device)
        return cls(ids, examples.offsets[:-1], examples.lengths, device, prefix, width)

    def take(self, examples: np.ndarray) -> Features:
        """Those of these examples only, in this order; the rows stay where they are."""
        return replace(self, starts=self.starts[examples], lengths=self.lengths[examples])

    @property
    def is_resident(self) -> bool:
        return self.flat.device == self.device

    def shape(self, indices: np.ndarray) -> BatchShape:
        """Of the smallest batch that holds the examples `indices`."""
        return BatchShape.padded(len(indices), self.width) if self.width else BatchShape.of(self.lengths[indices])

    def layout(self, indices: np.ndarray, shape: BatchShape | None = None) -> tuple[np.ndarray, PackedBatch]:
        """Where in `flat` each token of a batch of the examples `indices` lies, [tokens] int64, and the batch, on the
        CPU. Filler and padding point to the first token of all. The prefix counts the tokens as computed."""
        sources, batch = self._layout(indices, shape)
        if self.prefix and self.prefix.stages:
            self.prefix.computed_tokens += len(sources)
        return sources, batch

    def _layout(self, indices: np.ndarray, shape: BatchShape | None) -> tuple[np.ndarray, PackedBatch]:
        lengths = self.lengths[indices]
        of_rows = token_indices(self.starts[indices], lengths)
        if self.width:
            sources = np.zeros((len(indices), self.width), dtype=np.int64)
            sources[np.arange(self.width) < lengths[:, None]] = of_rows
            return sources.reshape(-1), PackedBatch.padded(lengths, self.width)
        shape = shape or BatchShape.of(lengths)
        sources = np.zeros(shape.tokens, dtype=np.int64)
        sources[: len(of_rows)] = of_rows
        return sources, PackedBatch.packed(lengths, shape)

    def fetch(self, sources: Tensor) -> Tensor:
        """The rows' tokens or stored states at `sources`, which lie where `flat` does."""
        return self.flat.index_select(0, sources)

    def of(self, rows: Tensor, batch: PackedBatch) -> tuple[Tensor, PackedBatch]:
        """What the suffix is fed with, from fetched rows on the device: features [tokens, hidden] (token ids [tokens]
        where the prefix is empty), and the batch that they make."""
        return features_of(self.prefix, rows, batch) if self.prefix else (rows, batch)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, PackedBatch]:
        """The same of the examples `indices`."""
        sources, batch = self.layout(indices)
        rows = self.fetch(torch.from_numpy(sources).to(self.flat.device))
        return self.of(rows.to(self.device), batch.to(self.device))


def features_of(prefix: Prefix, inputs: Tensor, batch: PackedBatch, done: int = 0) -> tuple[Tensor, PackedBatch]:
    """What the prefix makes of a batch, and the batch that its features make.

    inputs: token ids [tokens] int64, or the output [tokens, hidden] of the lowest `done` stages.
    """
    features = prefix.features(inputs, batch, done)
    if prefix.facts.reads:  # it hands over one vector of each row
        batch = PackedBatch.one_token_each(len(batch.lengths), inputs.device)
    return features, batch
