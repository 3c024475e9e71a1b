"""A micro-batch on its way to the device: laid out on the host in one buffer, copied there in one piece.

Its shapes follow from its `BatchShape`, so that a step that was captured for them can be replayed with other content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.features.features import Features
from harness.model.packing import BatchShape, PackedBatch


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass on one rank.

    features: of the part of the data that it is from. buffer: uint8, everything else that a step needs of it. rows:
    what `features` fetched, where they are not on the device; else None. hidden: width of the dropout that is part of
    the buffer; 0: none. label_smoothing: of the loss.
    """

    features: Features
    shape: BatchShape
    buffer: Tensor
    rows: Tensor | None
    hidden: int = 0
    label_smoothing: float = 0.0

    @classmethod
    def of(
        cls,
        features: Features,
        indices: np.ndarray,
        labels: np.ndarray,
        counts: bool,
        shape: BatchShape | None = None,
        weights: np.ndarray | None = None,
        dropout: np.ndarray | None = None,
        label_smoothing: float = 0.0,
    ) -> MicroBatch:
        """Of the examples `indices`. labels: [rows] int64. counts: False where it only fills the batch of a rank that
        has none left. shape: None: the smallest. weights: [rows], factors of the losses; None: all 1. dropout: [rows,
        hidden] float32, factors of the hidden states that the head reads; None: all 1."""
        shape = shape or features.shape(indices)
        sources, batch = features.layout(indices, shape)
        pinned = features.device.type == "cuda"
        counted = np.full(len(indices), counts, dtype=np.float32)
        parts = {
            "sources": sources,
            "slots": batch.slots if batch.slots is not None else np.zeros(0, dtype=np.int64),
            "starts": batch.starts,
            "lengths": batch.lengths,
            "labels": labels,
            "weights": counted if weights is None else counted * weights.astype(np.float32),
            "counted": counted,
            "dropout": np.zeros(0, dtype=np.float32) if dropout is None else dropout.reshape(-1),
            "boundaries": batch.boundaries,
        }
        buffer = torch.from_numpy(np.concatenate([np.asarray(part).view(np.uint8) for part in parts.values()]))
        rows = None if features.is_resident else features.fetch(torch.from_numpy(sources))
        if pinned:
            buffer, rows = buffer.pin_memory(), None if rows is None else rows.pin_memory()
        hidden = 0 if dropout is None else dropout.shape[1]
        return cls(features, shape, buffer, rows, hidden, label_smoothing)

    def to(self, device: torch.device) -> MicroBatch:
        """Without waiting for the copy."""
        rows = None if self.rows is None else self.rows.to(device, non_blocking=True)
        return replace(self, buffer=self.buffer.to(device, non_blocking=True), rows=rows)

    def copy_(self, other: MicroBatch) -> None:
        """Take over the content of one of the same shape, without waiting for it."""
        self.buffer.copy_(other.buffer, non_blocking=True)
        if self.rows is not None and other.rows is not None:
            self.rows.copy_(other.rows, non_blocking=True)

    def inputs(self) -> tuple[Tensor, PackedBatch]:
        """What the suffix is fed with. The micro-batch must be on the device."""
        rows = self.features.fetch(self._part("sources")) if self.rows is None else self.rows
        features, batch = self.features.of(rows, self._batch())
        return features, replace(batch, dropout=self._part("dropout").view(-1, self.hidden)) if self.hidden else batch

    @property
    def labels(self) -> Tensor:
        """[rows] int64."""
        return self._part("labels")

    @property
    def weights(self) -> Tensor:
        """[rows] float32: the factor of a row's loss, 0 where it is not counted."""
        return self._part("weights")

    @property
    def counted(self) -> Tensor:
        """[rows] float32: 0 for a row that only fills the batch of a rank that has none left, else 1."""
        return self._part("counted")

    def _batch(self) -> PackedBatch:
        return PackedBatch(
            starts=self._part("starts"),
            lengths=self._part("lengths"),
            width=self.shape.width,
            slots=None if self.shape.is_full else self._part("slots"),
            boundaries=self._part("boundaries"),
        )

    def _part(self, name: str) -> Tensor:
        """A view of the buffer."""
        start = 0
        for other, (dtype, count) in _parts(self.shape, self.hidden).items():
            end = start + count * dtype.itemsize
            if other == name:
                return self.buffer[start:end].view(dtype)
            start = end
        raise KeyError(name)


def _parts(shape: BatchShape, hidden: int) -> dict[str, tuple[torch.dtype, int]]:
    """Type and number of the elements of each part of a buffer, those of 8 bytes first, so that all are aligned."""
    return {
        "sources": (torch.int64, shape.tokens),
        "slots": (torch.int64, 0 if shape.is_full else shape.tokens),
        "starts": (torch.int64, shape.rows),
        "lengths": (torch.int64, shape.rows),
        "labels": (torch.int64, shape.rows),
        "weights": (torch.float32, shape.rows),
        "counted": (torch.float32, shape.rows),
        "dropout": (torch.float32, shape.rows * hidden),
        "boundaries": (torch.int32, shape.rows + shape.filler_rows + 1),
    }
