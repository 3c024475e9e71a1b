"""How often a gate with one row errs, and whether it sees what it says: `python -m benchmarks.visible_fall`
(about 20 minutes on one core).

References and reruns are drawn from the latent normal model of benchmarks/coverage.py. Both find the same messages
hard. With several seeds the rerun has luck of its own, as if a change had drawn other random numbers; with one seed it
has the reference's, as an unchanged training has, or in a column of its own another one. A fall lowers the threshold.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri

from benchmarks.coverage import OWN_DIFFICULTY, SEED_EFFECTS, SHARED_DIFFICULTY
from harness.gate.checks import FALSE_ALARMS
from harness.gate.visible_fall import Answers, smallest_visible_fall
from harness.statistics import mcnemar, paired_difference

# Where the rerun is as good, and where each reference states a fall of its own, which takes longer.
UNCHANGED, FALLEN = 4_000, 400
RATES = (0.8, 0.95)
MESSAGES = (300, 2_000)
SEEDS = (1, 3, 5)
TIMES = (0.5, 1, 2)
DIFFICULTY = SHARED_DIFFICULTY + OWN_DIFFICULTY


@dataclass(frozen=True)
class Kind:
    """Of suites. effect: standard deviation of a seed's luck."""

    rate: float
    messages: int
    seeds: int
    effect: float


@dataclass(frozen=True)
class Drawn:
    """A reference's answers [seeds, messages], and what a rerun has in common with it."""

    kind: Kind
    hard: np.ndarray
    luck: np.ndarray
    answers: np.ndarray

    @classmethod
    def of(cls, kind: Kind, random: np.random.Generator) -> Drawn:
        hard = np.sqrt(DIFFICULTY) * random.standard_normal(kind.messages)
        luck = kind.effect * random.standard_normal((kind.seeds, 1))
        return cls(kind, hard, luck, _answers(kind, kind.rate, hard, luck, random))

    def sees(self, random: np.random.Generator, fall: float = 0.0, other_luck: bool | None = None) -> bool:
        """Whether the gate alarms where the rerun is worse by `fall`. other_luck: of the rerun; None: with several
        seeds."""
        other_luck = self.kind.seeds > 1 if other_luck is None else other_luck
        luck = self.kind.effect * random.standard_normal(self.luck.shape) if other_luck else self.luck
        rerun = _answers(self.kind, max(self.kind.rate - fall, 0.0), self.hard, luck, random)
        found = mcnemar(rerun[0], self.answers[0]) if self.kind.seeds == 1 else paired_difference(rerun, self.answers)
        return bool(found.estimate < 0 and found.p / 2 < FALSE_ALARMS)


def _answers(kind: Kind, rate: float, hard: np.ndarray, luck: np.ndarray, random: np.random.Generator) -> np.ndarray:
    rest = np.sqrt(1 - DIFFICULTY - kind.effect**2) * random.standard_normal((kind.seeds, kind.messages))
    return ndtri(rate) + hard + luck + rest > 0


def false_alarms(kind: Kind, random: np.random.Generator, other_luck: bool | None = None) -> float:
    return float(np.mean([Drawn.of(kind, random).sees(random, other_luck=other_luck) for _ in range(UNCHANGED)]))


def detection(kind: Kind, random: np.random.Generator) -> tuple[list[float | None], dict[float, float]]:
    """The falls that references state, and how often multiples of them are seen by the gates that state one."""
    drawn = [Drawn.of(kind, random) for _ in range(FALLEN)]
    stated = [smallest_visible_fall(Answers.of(one.answers), FALSE_ALARMS) for one in drawn]
    pairs = [(one, fall) for one, fall in zip(drawn, stated, strict=True) if fall is not None]
    seen = {times: float(np.mean([one.sees(random, times * fall) for one, fall in pairs])) for times in TIMES}
    return stated, seen


def table(random: np.random.Generator) -> Table:
    titles = ["seeds", "messages", "accuracy", "luck", "no fall", "no fall, other luck", "stated fall", "states none"]
    titles += ["half of it", "as stated", "twice"]
    made = Table(*titles, title="Alarms, %", box=box.MARKDOWN, title_justify="left")
    for seeds, messages, rate, luck in itertools.product(SEEDS, MESSAGES, RATES, SEED_EFFECTS):
        kind = Kind(rate, messages, seeds, SEED_EFFECTS[luck])
        stated, seen = detection(kind, random)
        falls = 100 * np.array([fall for fall in stated if fall is not None])
        low, middle, high = np.percentile(falls, [10, 50, 90])
        alarms = [false_alarms(kind, random), false_alarms(kind, random, other_luck=True)]
        shown = [f"{100 * share:.1f}" for share in (*alarms, *seen.values())]
        about = [str(seeds), f"{messages:,}", f"{100 * rate:g}%", luck]
        none = f"{100 * (1 - len(falls) / len(stated)):.0f}"
        made.add_row(*about, *shown[:2], f"{middle:.1f} ({low:.1f} to {high:.1f})", none, *shown[2:])
    return made


def main() -> None:
    Console(width=160).print(table(np.random.default_rng(0)))


if __name__ == "__main__":
    main()
