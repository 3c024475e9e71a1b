"""Logits of every example exactly once, at any number of ranks, and the metrics that follow from them."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from harness.data.batches import Examples, collate, evaluation_batches
from harness.engine import Engine
from harness.engine.world import World
from harness.model.split import Prefix
from harness.records import Metrics
from harness.statistics import wilson_interval


def predict(
    engine: Engine, prefix: Prefix, examples: Examples, world: World, plain: tuple[int, int] | None = None
) -> np.ndarray:
    """Logits [examples, classes] float64, in the examples' own order, on every rank.

    The batches are the same at any number of ranks, so that their bits don't depend on it.
    plain: batch size and row width of the plain path.
    """
    batch_size, width = plain or (None, None)
    batches = evaluation_batches(examples, batch_size)
    # Every rank runs equally many batches: sharded engines exchange parameters in each forward pass.
    rounds = -(-len(batches) // world.size)
    mine = [(round_ * world.size + world.rank) % len(batches) for round_ in range(rounds)]
    results = [(number, _logits(engine, prefix, examples, batches[number], world, width)) for number in mine]
    gathered = {number: logits for rank in world.gather(results) for number, logits in rank}
    logits = np.empty((len(examples), next(iter(gathered.values())).shape[1]))
    for number, numbers in enumerate(batches):
        logits[numbers] = gathered[number]
    return logits


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits, axis=1))


def measure(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Mean cross-entropy, accuracy and its 95% Wilson interval."""
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    correct = int((logits.argmax(axis=1) == labels).sum())
    return Metrics(
        loss=float(loss),
        accuracy=correct / len(labels),
        correct=correct,
        total=len(labels),
        interval=wilson_interval(correct, len(labels)),
    )


def _logits(
    engine: Engine, prefix: Prefix, examples: Examples, numbers: np.ndarray, world: World, width: int | None
) -> np.ndarray:
    batch = collate(examples, numbers, width).to(world.device)
    features = prefix.features(batch.token_ids, batch.lengths)
    return engine.logits(features, batch.lengths).double().cpu().numpy()
