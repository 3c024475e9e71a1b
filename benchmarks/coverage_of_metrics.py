"""How often bootstrapped 95% intervals hold the truth, and how often verdicts on them err, on unbalanced classes:
`python -m benchmarks.coverage_of_metrics [METRIC]` (macro_f1 by default; 6 minutes of one core).

The latent normal model of coverage.py, with two classes: an answer is right where

    threshold(recall of the label's class) + seed + message + strategy's own message + rest > 0.

A seed shifts what its model calls the rare class: it finds more of that class and fewer of the other, or the reverse.
The truth is the expected value of the metric over new seeds on endlessly many messages; with one seed, which is drawn
without a shift, that of its model.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr, ndtri

from benchmarks.coverage import OWN_DIFFICULTY, SEED_EFFECTS, SHARED_DIFFICULTY
from harness.metrics import ClassCounts, Metric, metric_named
from harness.statistics import LEVEL, metric_difference, metric_interval

SUITES = 500
SHARES = (0.1, 0.03)  # of the rare class
MESSAGES = (300, 2_000)
SEEDS = (1, 3, 5)
RECALL = np.array([0.98, 0.8])  # of the common and of the rare class


def truth(metric: Metric, share: float, effect: float) -> float:
    """By quadrature over the seeds' shifts."""
    shifts, weights = np.polynomial.hermite_e.hermegauss(40)
    direction = np.array([-1, 1]) * effect * shifts[:, None]
    recall = ndtr((ndtri(RECALL) + direction) / np.sqrt(1 - effect**2))
    labelled = np.broadcast_to([1 - share, share], recall.shape)
    right = labelled * recall
    predicted = right + (labelled - right)[:, ::-1]
    return float(metric.of_counts(ClassCounts(labelled, predicted, right)) @ weights / weights.sum())


def pairs(
    random: np.random.Generator, share: float, seeds: int, messages: int, effect: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """SUITES times labels [messages], and predictions [2, seeds, messages] of two strategies that are alike."""
    rest = np.sqrt(1 - SHARED_DIFFICULTY - OWN_DIFFICULTY - effect**2)
    for _ in range(SUITES):
        labels = (random.random(messages) < share).astype(int)
        latent = ndtri(RECALL)[labels] + (2 * labels - 1) * effect * random.standard_normal((2, seeds, 1))
        latent = latent + np.sqrt(SHARED_DIFFICULTY) * random.standard_normal(messages)
        latent += np.sqrt(OWN_DIFFICULTY) * random.standard_normal((2, 1, messages))
        latent += rest * random.standard_normal((2, seeds, messages))
        yield labels, np.where(latent > 0, labels, 1 - labels)


def measured(
    random: np.random.Generator, metric: Metric, share: float, seeds: int, messages: int, effect: float
) -> tuple[float, float]:
    """The share of suites whose interval holds the truth, and of those with a verdict, though the two are alike."""
    effect = 0.0 if seeds == 1 else effect
    expected, held, wrong = truth(metric, share, effect), 0, 0
    for labels, (ours, theirs) in pairs(random, share, seeds, messages, effect):
        low, high = metric_interval(metric, labels, ours)
        held += low <= expected <= high
        wrong += float(metric_difference(metric, labels, ours, theirs).p) < LEVEL
    return held / SUITES, wrong / SUITES


def table(metric: Metric) -> Table:
    cells = list(itertools.product(SHARES, SEED_EFFECTS))
    title = f"{metric.title}: coverage of the 95% interval / verdicts on two strategies that are alike, %"
    heads = [f"{100 * share:g}% rare, {effect}" for share, effect in cells]
    shown = Table("seeds", "messages", *heads, title=title, box=box.MARKDOWN, title_justify="left")
    random = np.random.default_rng(0)
    for seeds, messages in itertools.product(SEEDS, MESSAGES):
        found = [measured(random, metric, share, seeds, messages, SEED_EFFECTS[effect]) for share, effect in cells]
        shown.add_row(str(seeds), f"{messages:,}", *(f"{100 * held:.1f} / {100 * wrong:.1f}" for held, wrong in found))
    return shown


def main() -> None:
    metric = metric_named(sys.argv[1] if len(sys.argv) > 1 else "macro_f1")
    Console(width=120).print(table(metric))


if __name__ == "__main__":
    main()
