"""What the suffix is fed: features read from the store, or computed by the prefix each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.data.batching import gather_rows
from harness.data.encoding import Examples
from harness.model.packing import PackedBatch
from harness.model.split import Prefix


class Features(Protocol):
    """The features of one part of the data.

    width: what rows are padded to with padding that is not attended to (the plain path); None where there is none.
    """

    @property
    def lengths(self) -> np.ndarray:
        """[examples], the tokens of each example as the suffix sees it."""
        ...

    @property
    def width(self) -> int | None: ...

    def batch(self, indices: np.ndarray) -> tuple[Tensor, PackedBatch]:
        """Features [tokens, hidden] (token ids [tokens] where the prefix is empty) of the examples `indices`."""
        ...


@dataclass(frozen=True)
class Computed:
    """Runs the prefix each time; pads to `width` where that is set, as the plain path does."""

    prefix: Prefix
    examples: Examples
    device: torch.device
    width: int | None = None

    @property
    def lengths(self) -> np.ndarray:
        return self.examples.lengths

    def batch(self, indices: np.ndarray) -> tuple[Tensor, PackedBatch]:
        lengths = self.lengths[indices]
        ids = gather_rows(self.examples.token_ids, self.examples.offsets[indices], lengths)
        if not self.width:
            return features_of(self.prefix, ids, PackedBatch.packed(lengths), self.device)
        rectangle = np.full((len(indices), self.width), self.examples.pad_token or 0)  # not attended to
        rectangle[np.arange(self.width) < lengths[:, None]] = ids
        return features_of(self.prefix, rectangle.reshape(-1), PackedBatch.padded(lengths, self.width), self.device)


@dataclass(frozen=True)
class Stored:
    """Reads the store. starts, lengths: where the features of each example lie in it."""

    store: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    device: torch.device
    width: None = None

    def batch(self, indices: np.ndarray) -> tuple[Tensor, PackedBatch]:
        lengths = self.lengths[indices]
        batch = PackedBatch.packed(lengths).to(self.device)
        features = torch.from_numpy(gather_rows(self.store, self.starts[indices], lengths))
        return batch.pack(features.to(self.device)), batch


def features_of(
    prefix: Prefix, inputs: np.ndarray, batch: PackedBatch, device: torch.device, done: int = 0
) -> tuple[Tensor, PackedBatch]:
    """What the prefix makes of the tokens of all rows of `batch`, one row after the other in `inputs`.

    inputs: token ids, or the output of the lowest `done` stages.
    """
    batch = batch.to(device)
    tokens = torch.from_numpy(np.array(inputs) if done else inputs.astype(np.int64)).to(device)
    features = prefix.features(batch.pack(tokens), batch, done)
    if prefix.facts.reads:  # it hands over one vector of each row
        batch = PackedBatch.packed(np.ones(len(batch.lengths), dtype=np.int64)).to(device)
    return features, batch
