"""How often the 95% intervals hold the truth, and how often verdicts err: `python -m benchmarks.coverage`.

Suites are drawn from a latent normal model. An answer is right where

    threshold(rate) + seed + message + strategy's own message + rest > 0,

normal parts whose variances add up to one; the truth, the expected accuracy over new seeds and new messages, is `rate`.

Of the suites of a cell each has a rate of its own, within half a message of the one that the cell is named by. At one
and the same truth a count of few errors decides alone whether the interval holds it, so that coverage jumps up and down
from one truth to the next (Brown, Cai and DasGupta, 2001); `sawtooth_table` shows by how much.
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
RATES = (0.55, 0.8, 0.95, 0.98)
MESSAGES = (100, 300, 2_000)
SEEDS = (2, 3, 5, 10)
# Standard deviations; 0.15 moves the accuracy of a seed by 5.9 points at 55% and by 0.7 at 98%.
SEED_EFFECTS = {"small": 0.03, "large": 0.15}
# Shares of the variance: what all strategies find hard alike, and what one of them does.
SHARED_DIFFICULTY, OWN_DIFFICULTY = 0.45, 0.15
STRATEGIES = 8
# What few errors do: 2 seeds on 100 messages.
SAWTOOTH = (0.97, 0.9725, 0.975, 0.9775, 0.98, 0.9825, 0.985, 0.9875, 0.99)
CELLS_AT_ONCE = 2_000_000


def suites(
    random: np.random.Generator,
    rate: float,
    seeds: int,
    messages: int,
    effect: float,
    strategies: int,
    spread: float = 1.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """SUITES suites, some at a time: right and wrong answers [suites, strategies, seeds, messages], and the truths
    [suites], drawn from a range of `spread` messages around `rate`."""

    def normal(deviation: float, *shape: int) -> np.ndarray:
        return np.float32(deviation) * random.standard_normal(shape, dtype=np.float32)

    rest = np.sqrt(1 - SHARED_DIFFICULTY - OWN_DIFFICULTY - effect**2)
    at_once = max(1, CELLS_AT_ONCE // (strategies * seeds * messages))
    for start in range(0, SUITES, at_once):
        count = min(at_once, SUITES - start)
        latent = normal(rest, count, strategies, seeds, messages)
        latent += normal(np.sqrt(SHARED_DIFFICULTY), count, 1, 1, messages)
        latent += normal(np.sqrt(OWN_DIFFICULTY), count, strategies, 1, messages)
        latent += normal(effect, count, strategies, seeds, 1)
        truths = rate + spread * random.uniform(-0.5, 0.5, count) / messages
        yield latent > -ndtri(truths)[:, None, None, None], truths


def interval_coverage(
    random: np.random.Generator, rate: float, seeds: int, messages: int, effect: float, spread: float = 1.0
) -> float:
    """The share of suites whose interval of one strategy's accuracy holds the truth."""
    held = 0
    for correct, truths in suites(random, rate, seeds, messages, effect, 1, spread):
        low, high = accuracy_interval(correct[:, 0])
        held += int(((low <= truths) & (truths <= high)).sum())
    return held / SUITES


def family_wise_error(
    random: np.random.Generator, rate: float, seeds: int, messages: int, effect: float
) -> tuple[float, float]:
    """Where all strategies are alike: the share of suites with a verdict, and of differences whose interval holds 0."""
    wrong, held = 0, 0.0
    for correct, _ in suites(random, rate, seeds, messages, effect, STRATEGIES):
        found = paired_difference(correct[:, 1:], correct[:, :1])
        wrong += int((holm(found.p) < LEVEL).any(axis=1).sum())
        held += float(((found.low <= 0) & (found.high >= 0)).mean(axis=1).sum())
    return wrong / SUITES, held / SUITES


def coverage_table(random: np.random.Generator, effect: str) -> Table:
    grid = list(itertools.product(SEEDS, MESSAGES))
    table = _table(f"Coverage of the 95% interval in %, seed effect {effect}", [f"{100 * rate:g}%" for rate in RATES])
    for seeds, messages in grid:
        found = [interval_coverage(random, rate, seeds, messages, SEED_EFFECTS[effect]) for rate in RATES]
        table.add_row(str(seeds), f"{messages:,}", *(f"{100 * share:.1f}" for share in found))
    return table


def sawtooth_table(random: np.random.Generator, effect: str) -> Table:
    title = f"Coverage in % where all suites have the same truth, 2 seeds, 100 messages, seed effect {effect}"
    table = Table(*(f"{100 * rate:g}%" for rate in SAWTOOTH), title=title, box=box.MARKDOWN, title_justify="left")
    found = [interval_coverage(random, rate, 2, 100, SEED_EFFECTS[effect], spread=0) for rate in SAWTOOTH]
    table.add_row(*(f"{100 * share:.1f}" for share in found))
    return table


def error_table(random: np.random.Generator, effect: str) -> Table:
    title = f"Suites of {STRATEGIES} alike with a verdict / coverage of differences in %, seed effect {effect}"
    rates = (0.55, 0.95, 0.98)
    table = _table(title, [f"{100 * rate:g}%" for rate in rates])
    for seeds, messages in itertools.product(SEEDS, (100, 300)):
        found = [family_wise_error(random, rate, seeds, messages, SEED_EFFECTS[effect]) for rate in rates]
        cells = [f"{100 * error:.1f} / {100 * held:.1f}" for error, held in found]
        table.add_row(str(seeds), f"{messages:,}", *cells)
    return table


def _table(title: str, rates: list[str]) -> Table:
    table = Table("seeds", "messages", *rates, title=title, box=box.MARKDOWN, title_justify="left")
    for column in table.columns:
        column.justify = "right"
    return table


def main() -> None:
    console, random = Console(width=120), np.random.default_rng(0)
    for build, effect in itertools.product((coverage_table, sawtooth_table, error_table), SEED_EFFECTS):
        console.print(build(random, effect), "")


if __name__ == "__main__":
    main()
