"""Readouts: from the hidden states of a packed batch to the one vector of each row that feeds the head."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness.config.strategy import Readout
from harness.model.backbone import Stage
from harness.model.packing import PackedBatch

Position = Literal["first", "last"]


class ReadToken(Stage):
    """The hidden state of the first or the last attended token of each row."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position: Position = position

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> [rows, hidden]."""
        hidden, batch = batch.unshared(hidden)
        return hidden.index_select(0, read_indices(batch, self.position))


class ReadMean(Stage):
    """The mean of the hidden states of all attended tokens of each row."""

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> [rows, hidden]."""
        rectangle = batch.rectangle(hidden)
        return (rectangle * batch.attended()[..., None]).sum(dim=1) / batch.lengths[:, None]


def read_indices(batch: PackedBatch, position: Position) -> Tensor:
    """Which tokens of the flat sequence are read, [rows] int64."""
    return batch.starts if position == "first" else batch.starts + batch.lengths - 1


def readout_of(kind: Readout) -> Stage:
    return ReadMean() if kind == "mean" else ReadToken(kind)
