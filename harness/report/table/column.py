"""A column of the comparison table: what is compared, how it is written, which value is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.report.analysis.entry import Entry
from harness.results.record import Record

Measure = Callable[[Record], float | None]


@dataclass(frozen=True)
class Column:
    """value: what is compared, None where it was not measured; show: how it is written; best: max, min or None.

    rank: columns with the highest are left out first where a terminal is too narrow. is_complete: whether nothing is
    missing from the value; otherwise it can't win. interval: 95%, of the value. sort_key: sorts rows, the smallest
    first, None last; by default the best value comes first. is_cost: whether runs beside it change the value.
    """

    title: str
    value: Callable[[Entry], float | str | None]
    show: Callable[[Entry], str]
    best: Callable[[Sequence[float]], float] | None
    rank: int
    is_complete: Callable[[Entry], bool] = lambda entry: True
    interval: Callable[[Entry], tuple[float, float] | None] | None = None
    sort_key: Callable[[Entry], float | None] | None = None
    is_cost: bool = False

    @property
    def name(self) -> str:
        """The title without its unit and brackets: `test` of "test % [95%]"."""
        return self.title.partition(" [")[0].removesuffix(" %")

    def number(self, entry: Entry) -> float | None:
        """The value; None where it is a word."""
        value = self.value(entry)
        return None if isinstance(value, str) else value

    def position(self, entry: Entry) -> float | None:
        """Of the entry among others, when rows are sorted by this column."""
        if self.sort_key:
            return self.sort_key(entry)
        number = self.number(entry)
        return -number if self.best is max and number is not None else number


def over_seeds(measure: Measure, summary: Callable[[list[float]], float]) -> Callable[[Entry], float | None]:
    def value(entry: Entry) -> float | None:
        measured = [one for one in map(measure, entry.shown) if one is not None]
        if len(measured) < 2:
            return measured[0] if measured else None
        return float(summary(measured))

    return value


def measured_column(
    title: str,
    measure: Measure,
    show: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
    rank: int,
    summary: Callable[[list[float]], float] = np.mean,
) -> Column:
    value = over_seeds(measure, summary)
    return Column(title, value, lambda entry: show(known(value(entry))), best, rank)


def known(value: float | None) -> float:
    assert value is not None, "a value is written only where it was measured"
    return value
