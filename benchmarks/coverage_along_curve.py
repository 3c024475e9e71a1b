"""Coverage and false verdicts along a learning curve over labels: `python -m benchmarks.coverage_along_curve`.

The latent model of `benchmarks.coverage`, with a curve that rises: from each size to the next the seed's luck, which is
mostly that of its draw of texts, becomes smaller. Parts of one seed hold each other, so that its luck at one size is
that at the size before, in part; and strategies train on the same draw, so that they share half of its luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from harness.statistics import LEVEL, accuracy_interval, holm, paired_difference

SUITES = 1_000
# Of each size, small to large: the true accuracy, and the standard deviation of the seed's effect.
RATES = (0.65, 0.80, 0.90, 0.95)
EFFECTS = {"small draws alike": (0.10, 0.08, 0.05, 0.03), "small draws differ": (0.50, 0.35, 0.20, 0.10)}
MESSAGES = (100, 300)
SEEDS = (2, 3, 5)
STRATEGIES = 4
SHARED_DIFFICULTY, OWN_DIFFICULTY = 0.35, 0.15
CARRIED_OVER = 0.5  # share of the variance of a seed's luck that it brings from the size before
CELLS_AT_ONCE = 2_000_000


def suites(
    random: np.random.Generator, seeds: int, messages: int, effects: tuple[float, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """SUITES suites of alike strategies, some at a time: right and wrong answers [suites, sizes, strategies, seeds,
    messages], and the truths [suites, sizes], each within half a message of RATES."""
    sizes, deviations = len(RATES), np.array(effects)
    at_once = max(1, CELLS_AT_ONCE // (sizes * STRATEGIES * seeds * messages))
    for start in range(0, SUITES, at_once):
        count = min(at_once, SUITES - start)
        luck = random.standard_normal((count, sizes, STRATEGIES, seeds, 1)) * np.sqrt(0.5)
        luck += random.standard_normal((count, sizes, 1, seeds, 1)) * np.sqrt(0.5)
        for size in range(1, sizes):
            luck[:, size] = np.sqrt(CARRIED_OVER) * luck[:, size - 1] + np.sqrt(1 - CARRIED_OVER) * luck[:, size]
        latent = luck * deviations[:, None, None, None]
        latent = latent + np.sqrt(SHARED_DIFFICULTY) * random.standard_normal((count, 1, 1, 1, messages))
        latent += np.sqrt(OWN_DIFFICULTY) * random.standard_normal((count, 1, STRATEGIES, 1, messages))
        rest = np.sqrt(1 - SHARED_DIFFICULTY - OWN_DIFFICULTY - deviations**2)
        latent += rest[:, None, None, None] * random.standard_normal((count, sizes, STRATEGIES, seeds, messages))
        truths = np.array(RATES) + random.uniform(-0.5, 0.5, (count, sizes)) / messages
        yield latent > -ndtri(truths)[:, :, None, None, None], truths


def along_curve(
    random: np.random.Generator, seeds: int, messages: int, effects: tuple[float, ...]
) -> tuple[np.ndarray, float]:
    """The share of intervals that hold the truth, [sizes], and of curves with any verdict, where there is none."""
    held, wrong = np.zeros(len(RATES)), 0
    for correct, truths in suites(random, seeds, messages, effects):
        low, high = accuracy_interval(correct[:, :, 0])
        held += ((low <= truths) & (truths <= high)).sum(axis=0)
        p = paired_difference(correct[:, :, 1:], correct[:, :, :1]).p
        wrong += int((holm(p.reshape(len(p), -1)) < LEVEL).any(axis=1).sum())
    return held / SUITES, wrong / SUITES


def main() -> None:
    console, random = Console(width=120), np.random.default_rng(0)
    for name, effects in EFFECTS.items():
        title = f"Coverage of the 95% interval by size, and curves of {STRATEGIES} alike with a verdict, in %, {name}"
        titles = [f"{100 * rate:g}%" for rate in RATES]
        table = Table("seeds", "messages", *titles, "verdict", title=title, box=box.MARKDOWN, title_justify="left")
        for column in table.columns:
            column.justify = "right"
        for seeds, messages in itertools.product(SEEDS, MESSAGES):
            held, wrong = along_curve(random, seeds, messages, effects)
            table.add_row(str(seeds), f"{messages:,}", *(f"{100 * share:.1f}" for share in (*held, wrong)))
        console.print(table, "")


if __name__ == "__main__":
    main()
