"""Readouts: from the hidden states of a packed batch to the one vector of each row that feeds the head."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

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


class ReadMax(Stage):
    """The largest value of each dimension among the hidden states of all attended tokens of each row."""

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> [rows, hidden]."""
        rectangle = batch.rectangle(hidden)
        return rectangle.masked_fill(~batch.attended()[..., None], -math.inf).amax(dim=1)


class ReadAttention(Stage):
    """A weighted mean of the hidden states of all attended tokens of each row: the weights are the softmax of their
    products with a trained query, [hidden], which starts at zero: all weights alike."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(hidden))

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> [rows, hidden]."""
        rectangle = batch.rectangle(hidden)
        products = (rectangle * self.query).sum(dim=-1)  # a matrix product could be in bfloat16
        weights = products.masked_fill(~batch.attended(), -math.inf).softmax(dim=-1)
        return (rectangle * weights[..., None]).sum(dim=1)


def read_indices(batch: PackedBatch, position: Position) -> Tensor:
    """Which tokens of the flat sequence are read, [rows] int64."""
    return batch.starts if position == "first" else batch.starts + batch.lengths - 1


def readout_of(kind: Readout, hidden: int) -> Stage:
    """hidden: the width of the hidden states."""
    if kind in ("first", "last"):
        return ReadToken(kind)
    return {"mean": ReadMean, "max": ReadMax, "attention": lambda: ReadAttention(hidden)}[kind]()
