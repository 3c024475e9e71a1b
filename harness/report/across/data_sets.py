"""Several data sets in one table: tables that differ in their data only, with mean ranks over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from harness.report.across.family import Family, alike
from harness.report.across.matrix import Matrix
from harness.report.table.comparison_table import ComparisonTable
from harness.results.record import DataFacts
from harness.statistics import LEVEL

FEWEST_DATA_SETS = 5  # of which something is claimed that goes beyond them


@dataclass(frozen=True)
class Ranks:
    """Of the rows over the data sets, 1 for the best; ties share a rank (Demsar, JMLR, 2006).

    mean: by name of the row. p: of Friedman's test that all rank alike. pairs: p-values of each pair of rows, corrected
    for all pairs (Siegel and Castellan's comparison of mean ranks, Holm).
    """

    mean: pd.Series
    p: float
    pairs: pd.DataFrame

    @property
    def differ(self) -> bool:
        return self.p < LEVEL

    def _p(self, one: str, other: str) -> float:
        return float(self.pairs.at[one, other])  # pyright: ignore[reportArgumentType]  # its cells are numbers

    def shown_worse(self, best: str) -> list[str]:
        """The rows that rank below `best` with evidence."""
        return [name for name in self.mean.index if name != best and self._p(best, name) < LEVEL]


@dataclass(frozen=True)
class DataSets:
    """names: of the data sets, one for each table of the family."""

    family: Family
    names: list[str]

    @property
    def heading(self) -> str:
        return f"{len(self.names)} data sets: {', '.join(self.names)}"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """[data sets, rows]: means on test, of the rows that have one for each data set."""
        complete = {
            name: [score.mean for cell in row if cell and (score := cell.entry.score)]
            for name, row in self.family.rows.items()
        }
        return pd.DataFrame({name: means for name, means in complete.items() if len(means) == len(self.names)})

    @cached_property
    def mean_ranks(self) -> pd.Series:
        """By name of the row; to six digits, since equal metrics may differ by a rounding error."""
        return self.scores.round(6).rank(axis=1, ascending=False).mean()

    @cached_property
    def ranks(self) -> Ranks | None:
        """None where there are too few data sets, or fewer than three rows, for Friedman's test."""
        if len(self.names) < FEWEST_DATA_SETS or self.scores.shape[1] < 3:
            return None
        from scikit_posthocs import posthoc_siegel_friedman  # imports statsmodels and seaborn, which takes 2 s
        from scipy.stats import friedmanchisquare

        scores = self.scores.round(6)
        p = float(friedmanchisquare(*(scores[name] for name in scores)).pvalue)
        return Ranks(self.mean_ranks, p, posthoc_siegel_friedman(scores, p_adjust="holm"))


def data_sets(tables: Sequence[ComparisonTable]) -> list[DataSets]:
    """One for each family of tables of several data sets."""
    return [
        DataSets(Family.of(family), [_data(table).name for table in family])
        for family in alike(tables, _without_data, lambda table: (_data(table).name, _data(table).sha256))
    ]


def _data(table: ComparisonTable) -> DataFacts:
    return next(entry.ok[0].ok_data for entry in table.entries if entry.ok)


def _without_data(conditions: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in conditions.items() if key not in ("data", "data sha256")}


def data_sets_matrix(found: DataSets) -> Matrix:
    family, title = found.family, found.family.tables[-1].metric.title
    cells = []
    for name, row in family.rows.items():
        verdicts = [cell.verdict for cell in row if cell]
        won = f"{verdicts.count('better')} - {verdicts.count('worse')}" if name != family.reference else "-"
        rank = f"{found.mean_ranks[name]:.2f}" if name in found.mean_ranks else "-"
        cells.append([name, *(cell.text if cell else "-" for cell in row), rank, won])
    notes = [
        f"{title[0].upper()}{title[1:]} on test, %, [95%]. ↑, ↓: better or worse than {family.reference}, at a 5% "
        f"error over all {family.comparisons} comparisons of this table together (Holm); won - lost counts them.",
        "Mean rank: over the data sets, 1 is best, ties share a rank; rows that miss a data set have none.",
        "Each data set has a table of its own in table.md.",
    ]
    titles = ["strategy", *found.names, "mean rank", "won - lost"]
    return Matrix(found.heading, titles, cells, list(_in_words(found)), notes)


def _in_words(found: DataSets) -> Iterator[str]:
    ranks, count = found.ranks, len(found.names)
    if count < FEWEST_DATA_SETS:
        yield (
            f"These are statements on {count} data sets, one by one: how strategies rank on others is not claimed from "
            f"fewer than {FEWEST_DATA_SETS}."
        )
    elif ranks is None:
        yield "How strategies rank over data sets is tested for three rows or more that ran on all of them."
    elif not ranks.differ:
        yield f"Over these {count} data sets no strategy is shown to rank above another (Friedman, p = {ranks.p:.3f})."
    else:
        best = str(ranks.mean.idxmin())
        yield f"Over these {count} data sets strategies rank differently (Friedman, p = {ranks.p:.2g})."
        worse = ranks.shown_worse(best)
        than = f"it is shown to rank above {', '.join(worse)}" if worse else "it is not shown to rank above any other"
        yield f"{best} has the best mean rank ({ranks.mean[best]:.2f}); {than}."
