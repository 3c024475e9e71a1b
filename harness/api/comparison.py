"""What a comparison of strategies gives: a table, verdicts, plots, and the best classifier."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from harness.api.bench import Finished
from harness.config.suite import SuiteConfig
from harness.errors import UserError, did_you_mean
from harness.metrics import METRICS
from harness.report import messages
from harness.report.analysis.grouping import Group, groups
from harness.report.table import formats, html
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results import saved_classifier
from harness.results.record import Record
from harness.results.saved_classifier import Label
from harness.results.store import Store, newest_of_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.api.text_classifier import TextClassifier

_WIDTH = 160  # characters, as where the command line's output is no terminal


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """The runs of a suite, compared; what it shows is computed when it is asked for.

    store: the folder of results. price: of an hour of a device, or None. label_of: the label of each class, where texts
    were given with labels that are no strings.
    """

    store: Store
    cache: Path
    suite: SuiteConfig
    finished: Finished
    price: float | None
    label_of: Mapping[str, Label]

    @property
    def records(self) -> list[Record]:
        """One for each run, failed ones and those of sweeps too."""
        return self.finished.shown

    @property
    def table(self) -> pd.DataFrame:
        """A row for each strategy, as `ftbench table --format csv` has it: accuracies from 0 to 1, seconds, bytes.

        The 95% interval of a column `test` stands in `test low` and `test high`. `failure` says what went wrong.
        """
        return formats.frame(self._tables)

    @property
    def verdicts(self) -> pd.DataFrame:
        """A row for each strategy that was compared with the reference; of several tables the first column names each.

        difference: of the metric, with its 95% interval `low` and `high`. p: corrected for the number of comparisons
        (Holm). verdict: better, worse or no evidence.
        """
        rows = [
            {
                **({"table": table.heading} if len(self._tables) > 1 else {}),
                table.first_title: entry.name,
                "reference": evidence.reference,
                "difference": evidence.difference,
                "low": evidence.interval[0],
                "high": evidence.interval[1],
                "p": evidence.corrected_p,
                "verdict": evidence.verdict,
                "seeds": len(evidence.seeds),
            }
            for table in self._tables
            for entry in table.entries
            if (evidence := entry.evidence)
        ]
        columns = ["strategy", "reference", "difference", "low", "high", "p", "verdict", "seeds"]
        return pd.DataFrame(rows, columns=None if rows else columns)

    @property
    def in_words(self) -> str:
        """What to take for accuracy, what for cost, and what is open."""
        return "\n".join(" ".join(table.in_words) for table in self._tables if table.in_words)

    @property
    def best(self) -> TextClassifier:
        """The classifier of the run that is best, by the metric, on the validation texts. Of baselines none is kept, so
        that one may be better: `in_words` and `table` say so.

        Raises UserError where there is none: baselines only, several data sets, or runs that failed.
        """
        return self._best

    @cached_property
    def _best(self) -> TextClassifier:
        from harness.api.text_classifier import TextClassifier  # scikit-learn takes a second

        if self.finished.saved is None:
            raise UserError(
                "no classifier is kept of this comparison: it needs one data set, and a strategy whose run ended well."
            )
        record, folder = self.finished.saved
        if saved_classifier.read(folder).run_id != record.run_id:
            raise UserError(
                f"{str(folder)!r} holds the classifier of another comparison since: call compare(...) again, or give "
                "each a folder of its own with results=..."
            )
        return TextClassifier.load(folder, self.cache, self.label_of)

    def predictions(self, strategy: str) -> pd.DataFrame:
        """What each seed of a row of the table predicted for the test texts: the columns seed, index (the row in the
        data, from 0), label and predicted, both as the labels were given; of several tables the first column names
        each.

        Raises UserError for a row that there is not, and where the files are gone.
        """
        rows = [(table.heading, entry) for table in self._tables for entry in table.entries if entry.ok]
        chosen = [(heading, entry.ok) for heading, entry in rows if entry.name == strategy]
        if not chosen:
            raise _unknown("strategy", strategy, list(dict.fromkeys(entry.name for _, entry in rows)))
        frames = []
        for heading, records in chosen:
            for record in records:
                frames.append(self._predictions_of(record))
                if len(self._tables) > 1:
                    frames[-1].insert(0, "table", heading)
        return pd.concat(frames, ignore_index=True)

    def _predictions_of(self, record: Record) -> pd.DataFrame:
        frame = self.store.predictions(record.run_id)
        if frame is None:
            raise UserError(
                f"the predictions of {record.run_id!r} are gone from {str(self.store.runs)!r}: call compare(...) "
                "again, with results=... if the folder was moved, with force=True if they were removed."
            )
        frame.insert(0, "seed", record.seed)
        if self.label_of:
            named = ["label", "predicted"]
            frame[named] = frame[named].apply(lambda labels: labels.map(self.label_of))
        return frame

    def plot(self, kind: str = "accuracy", table: int = 0) -> Figure:
        """A figure as the page has it: accuracy, memory, accuracy_time, confusion, ... table: which, where there are
        several. Raises UserError for a plot or a table that there is not, naming those that there are.
        """
        from harness.report.plots.drawing import style
        from harness.report.plots.of_table import plots_of

        if not isinstance(table, int) or table not in range(len(self._tables)):
            raise UserError(
                f"plot(table={table!r}): expected a number from 0 to {len(self._tables) - 1}: which of the tables of "
                "this comparison to plot."
            )
        with style():
            plots = plots_of(
                self._tables[table], self._groups[table], self.store.all(), self.store, self.suite.reference
            )
            figures = {plot.name: plot.figure for plot in plots}
        if kind not in list(figures):
            raise _unknown("plot", kind, list(figures))
        return figures[kind]

    @cached_property
    def _groups(self) -> list[Group]:
        return groups(newest_of_each(self.records), self.finished.suites)

    @cached_property
    def _tables(self) -> list[ComparisonTable]:
        metric = METRICS[self.suite.metric]
        return comparison_tables(self._groups, self.store, self.suite.reference, metric=metric, price=self.price)

    def __repr__(self) -> str:
        """The tables as the command line prints them, without colours."""
        written = io.StringIO()
        messages.print_tables(Console(file=written, width=_WIDTH, color_system=None, force_jupyter=False), self._tables)
        return written.getvalue().rstrip()

    def _repr_html_(self) -> str:
        return html.html(self._tables)


def _unknown(what: str, given: object, known: list[str]) -> UserError:
    hint = did_you_mean(str(given), known)
    return UserError(f"unknown {what} {given!r} of this comparison: {hint}Known are {', '.join(known)}.")
