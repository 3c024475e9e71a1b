"""What the suffix is fed with: features read from the store, or computed by the prefix each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from harness.data.batching import gather_rows
from harness.data.encoding import Examples
from harness.model.packing import Rows
from harness.model.split import Prefix


class Features(Protocol):
    """The features of one part of the data.

    lengths: [examples], the tokens of each example as the suffix sees it. width: what rows are padded to with padding
    that nobody attends to (the plain path); None where there is none.
    """

    lengths: np.ndarray
    width: int | None

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Rows]:
        """Features [tokens, hidden] (token ids [tokens] where the prefix is empty) of the examples `numbers`."""


@dataclass
class Computed:
    """Runs the prefix each time; pads to `width` where that is set, as the plain path does."""

    prefix: Prefix
    examples: Examples
    device: torch.device
    width: int | None = None

    @property
    def lengths(self) -> np.ndarray:
        return self.examples.lengths

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Rows]:
        lengths = self.lengths[numbers]
        ids = gather_rows(self.examples.token_ids, self.examples.offsets[numbers], lengths)
        if not self.width:
            return features_of(self.prefix, ids, Rows.packed(lengths), self.device)
        rectangle = np.full((len(numbers), self.width), self.examples.pad_token or 0)  # nobody attends to it
        rectangle[np.arange(self.width) < lengths[:, None]] = ids
        return features_of(self.prefix, rectangle.reshape(-1), Rows.padded(lengths, self.width), self.device)


@dataclass
class Stored:
    """Reads the store. starts, lengths: where the features of each example lie in it."""

    store: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    device: torch.device
    width: None = None

    def batch(self, numbers: np.ndarray) -> tuple[Tensor, Rows]:
        lengths = self.lengths[numbers]
        rows = Rows.packed(lengths).to(self.device)
        features = torch.from_numpy(gather_rows(self.store, self.starts[numbers], lengths))
        return rows.pack(features.to(self.device)), rows


def features_of(
    prefix: Prefix, inputs: np.ndarray, rows: Rows, device: torch.device, done: int = 0
) -> tuple[Tensor, Rows]:
    """What the prefix makes of the tokens of all `rows`, which stand one row after the other in `inputs`.

    inputs: token ids, or what the lowest `done` stages have made of them.
    """
    rows = rows.to(device)
    tokens = torch.from_numpy(np.array(inputs) if done else inputs.astype(np.int64)).to(device)
    features = prefix.features(rows.pack(tokens), rows, done)
    # A prefix that reads hands over one vector of each row.
    return features, Rows.packed(np.ones(len(rows.lengths), dtype=np.int64)).to(device) if prefix.readout else rows
