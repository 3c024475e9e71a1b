"""Logits of every example exactly once, at any number of ranks, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from harness.data.batching import batches_by_length, batches_in_order, tokens_at_once
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.features.token_budget import TokenBudget
from harness.metrics import METRICS
from harness.model.packing import PackedBatch
from harness.results.quality import Metrics
from harness.statistics import expected_calibration_error, wilson_interval


class Scorer(Protocol):
    """An engine, or whatever else gives logits."""

    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        """[rows, classes] without gradient; every rank calls it equally often."""
        ...


def predict(
    scorer: Scorer,
    features: Features,
    world: World,
    batch_size: int | None = None,
    budget: TokenBudget | None = None,
) -> np.ndarray:
    """Logits [examples, classes] float64, in the order of the examples, on every rank.

    The batches are the same at any number of ranks, so that their bits don't depend on it: by length, or of
    `batch_size` in the order of the examples. One for which memory runs out is computed in parts.
    budget: None: as many tokens as the type of the device takes.
    """
    budget = budget or TokenBudget(tokens_at_once(world.device.type), world.device)
    lengths, count = features.lengths, len(features.lengths)
    batches = batches_in_order(count, batch_size) if batch_size else batches_by_length(lengths, budget.tokens)
    # Every rank runs equally many batches: sharded engines exchange parameters in each forward pass.
    rounds = -(-len(batches) // world.size)
    local = [batches[(round_ * world.size + world.rank) % len(batches)] for round_ in range(rounds)]
    if world.size > 1:  # a rank that cut its batches would call the scorer more often than others
        parts = ((indices, scorer.logits(*features.batch(indices))) for indices in local)
    else:
        parts = budget.in_parts(local, lambda indices: scorer.logits(*features.batch(indices)))
    local_logits = _in_one_array(parts, sum(map(len, local)))
    logits = np.empty((count, local_logits.shape[1]))
    for indices, found in world.gather((np.concatenate(local), local_logits)):
        logits[indices] = found
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits, axis=1))


def mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def measure(logits: np.ndarray, labels: np.ndarray, classes: list[str]) -> Metrics:
    """Metrics of logits [examples, classes] or log-probabilities."""
    from sklearn.metrics import f1_score  # takes 2 s, which a command that measures nothing does without

    predicted, likelihoods = logits.argmax(axis=1), probabilities(logits)
    correct = int((predicted == labels).sum())
    every = range(len(classes))
    # Its types are read off its defaults.
    f1 = f1_score(labels, predicted, labels=every, average=None, zero_division=0)  # pyright: ignore[reportArgumentType]
    return Metrics(
        loss=mean_loss(logits, labels),
        accuracy=correct / len(labels),
        correct=correct,
        total=len(labels),
        interval=wilson_interval(correct, len(labels)),
        f1=dict(zip(classes, np.asarray(f1).tolist(), strict=True)),
        roc_auc=_roc_auc(likelihoods, labels),
        calibration_error=expected_calibration_error(likelihoods, labels),
        macro_f1=float(METRICS["macro_f1"](labels, predicted)),
        balanced_accuracy=float(METRICS["balanced_accuracy"](labels, predicted)),
        mcc=float(METRICS["mcc"](labels, predicted)),
    )


def _roc_auc(likelihoods: np.ndarray, labels: np.ndarray) -> float | None:
    """Of the second of two classes, else the mean over the classes that occur; None where only one does."""
    from sklearn.metrics import roc_auc_score  # here for the same reason

    occurring = np.unique(labels)
    if len(occurring) < 2:
        return None
    columns = [1] if likelihoods.shape[1] == 2 else occurring
    return float(np.mean([roc_auc_score(labels == column, likelihoods[:, column]) for column in columns]))


def _in_one_array(parts: Iterable[tuple[np.ndarray, Tensor]], count: int) -> np.ndarray:
    """The logits of all parts, one after the other: [count, classes] float64.

    Many small ones, held between the large tensors of each batch, would fragment the allocator's memory by gigabytes
    (results/reference/speed_2_cores_avx512_bf16.md).
    """
    filled: Tensor | None = None
    start = 0
    for indices, found in parts:
        if filled is None:
            filled = found.new_empty((count, found.shape[1]), dtype=torch.float64)
        filled[start : start + len(indices)] = found
        start += len(indices)
    assert filled is not None, "there are no batches"
    return filled.cpu().numpy()
