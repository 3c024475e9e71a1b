"""The loss of a step: the cross-entropy at the readout, summed over the global batch and divided by its size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.training.micro_batch import MicroBatch


def loss_sum(logits: Tensor, micro_batch: MicroBatch) -> Tensor:
    """The weighted sum of the rows' cross-entropies, a scalar. logits: [rows, classes]."""
    smoothing = micro_batch.label_smoothing
    losses = F.cross_entropy(logits, micro_batch.labels, reduction="none", label_smoothing=smoothing)
    return (losses * micro_batch.weights).sum()


def part_of_step(loss: Tensor, logits: Tensor, micro_batch: MicroBatch, global_count: int) -> Tensor:
    """What a micro-batch adds to a step's [loss, accuracy]; `loss` is divided by the count already.

    For the accuracy every row counts the same, whatever the weight of its loss.
    """
    right = torch.dot((logits.argmax(dim=1) == micro_batch.labels).float(), micro_batch.counted) / global_count
    return torch.stack([loss.detach(), right.to(loss.dtype)])
