"""The rows of a table compared: the seeds of each strategy together, with the evidence for or against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness import statistics
from harness.errors import UserError
from harness.report.analysis.grouping import SAME, Group
from harness.report.analysis.sweep import without_other_rates
from harness.results.record import Record
from harness.results.store import Store

DEFAULT_REFERENCE = "last_block"


@dataclass(frozen=True)
class Evidence:
    """An entry against the reference, on the seeds whose runs are ok for both; accuracies from 0 to 1.

    corrected_p: Holm's, over the table's comparisons. seeds_needed, messages_needed: what would probably settle a row
    without evidence; None where the verdict is clear, one seed was compared or no number would do.
    """

    reference: str
    seeds: list[int]
    difference: float
    interval: tuple[float, float]
    p: float
    corrected_p: float
    verdict: statistics.Verdict
    seeds_needed: int | None
    messages_needed: int | None


@dataclass
class Entry:
    """All seeds of one strategy with what the configuration changed of it; ok: the records whose status is ok.

    interval: 95%, of the mean test accuracy: over seeds and messages where two seeds or more are ok, else over messages
    only. unpaired: the reason why its seeds' predictions can't be taken together; incomparable: the reason why not with
    the reference's. correct: by seed, whether each test message was classified right, by index of the message.
    """

    name: str
    records: list[Record]
    ok: list[Record]
    interval: tuple[float, float] | None = None
    evidence: Evidence | None = None
    unpaired: str | None = None
    incomparable: str | None = None
    correct: dict[int, pd.Series] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> list[Record]:
        """The records whose values the row shows: without an ok run, what the first one measured."""
        return self.ok or self.records[:1]

    @property
    def is_baseline(self) -> bool:
        """A baseline doesn't vary with the seed: its one run is compared with every seed of another entry."""
        return self.records[0].strategy_source.is_baseline

    @property
    def accuracies(self) -> list[float]:
        """On test, of each seed whose run is ok."""
        return [record.ok_metrics.test.accuracy for record in self.ok]

    @property
    def accuracy(self) -> float | None:
        """On test, mean over seeds."""
        return float(np.mean(self.accuracies)) if self.ok else None

    @property
    def ok_accuracy(self) -> float:
        """The accuracy of an entry with an ok run."""
        assert self.accuracy is not None, f"no run of {self.name} is ok"
        return self.accuracy

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test accuracy over seeds."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.ok) > 1 else None

    @property
    def failures(self) -> list[Record]:
        return [record for record in self.records if record.status != "ok"]


def compare(group: Group, store: Store, reference: str | None = None) -> list[Entry]:
    """The entries of one table, each with its interval and, but for the reference, its evidence.

    reference: the name of a strategy or row; where it is None or not among the rows, last_block or else the first.
    """
    entries = [_entry(name, records, store) for name, records in _rows(group).items()]
    base = reference_of(entries, reference)
    compared = [entry for entry in entries if entry is not base and _comparable(entry, base)]
    differences = [_difference(entry, base) for entry in compared]
    corrected = statistics.holm(np.array([float(difference.p) for difference in differences]))
    for entry, difference, corrected_p in zip(compared, differences, corrected, strict=True):
        entry.evidence = _evidence(entry, base, difference, float(corrected_p), len(compared))
    return entries


def _rows(group: Group) -> dict[str, list[Record]]:
    """The newest record of each seed, by name of the row."""
    rows: dict[str, dict[int, Record]] = {}
    for record in without_other_rates(group.records):
        by_seed = rows.setdefault(group.name_of(record), {})
        # There are several where a run was repeated with other settings that are no conditions of the table.
        if record.seed not in by_seed or by_seed[record.seed].finished_at <= record.finished_at:
            by_seed[record.seed] = record
    return {name: list(by_seed.values()) for name, by_seed in rows.items()}


def reference_of(entries: list[Entry], wanted: str | None) -> Entry:
    for name in (wanted, DEFAULT_REFERENCE):
        named = [entry for entry in entries if name in (entry.name, *entry.name.split(SAME))]
        named += [entry for entry in entries if entry.records[0].strategy == name]
        for entry in named:
            if entry.ok or name == wanted:
                return entry
    return next((entry for entry in entries if entry.ok), entries[0])


def check_reference(groups: Sequence[Group], reference: str | None) -> None:
    """Raises UserError for a reference that no row has."""
    rows = [(record.strategy, group.name_of(record)) for group in groups for record in group.records]
    names = list(dict.fromkeys(name for row in rows for joined in row for name in joined.split(SAME)))
    if reference and reference not in names:
        raise UserError(f"REFERENCE={reference!r} is none of the rows: expected one of {', '.join(names)}.")


def _entry(name: str, records: list[Record], store: Store) -> Entry:
    """With the test messages that each seed classified right, and the interval."""
    entry = Entry(name, records, [record for record in records if record.status == "ok"])
    if not entry.ok:
        return entry
    for record in entry.ok:
        frame = store.predictions(record.run_id)
        if frame is None:
            entry.unpaired = f"{record.run_id} has no predictions.csv"
            break
        entry.correct[record.seed] = (frame["label"] == frame["predicted"]).set_axis(frame["index"]).sort_index()
    seeds = list(entry.correct.values())
    if not entry.unpaired and not all(correct.index.equals(seeds[0].index) for correct in seeds):
        entry.unpaired = "its seeds were tested on different messages"
    if len(entry.ok) == 1:
        entry.interval = entry.ok[0].ok_metrics.test.interval
    elif not entry.unpaired:
        low, high = statistics.accuracy_interval(_outcomes(entry, list(entry.correct)))
        entry.interval = (float(low), float(high))
    return entry


def _comparable(entry: Entry, base: Entry) -> bool:
    """Whether the two can be compared; if not, the entry gets the reason."""
    if entry.unpaired or base.unpaired or not entry.ok:
        return False
    if not base.ok:
        entry.incomparable = f"no run of {base.name} ended well"
    elif not _common_seeds(entry, base):
        entry.incomparable = f"it has no seed in common with {base.name}"
    elif entry.ok[0].ok_data.sha256 != base.ok[0].ok_data.sha256:
        entry.incomparable = f"it was tested on other data than {base.name}"
    elif not next(iter(entry.correct.values())).index.equals(next(iter(base.correct.values())).index):
        entry.incomparable = f"it was tested on other messages than {base.name}"
    return not entry.incomparable


def _outcomes(entry: Entry, seeds: list[int]) -> np.ndarray:
    """[seeds, messages], whether the model of a seed classified a message right."""
    if entry.is_baseline:
        return np.stack([next(iter(entry.correct.values())).to_numpy()] * len(seeds))
    return np.stack([entry.correct[seed].to_numpy() for seed in seeds])


def _common_seeds(entry: Entry, base: Entry) -> list[int]:
    """The seeds on which two entries are compared."""
    if entry.is_baseline or base.is_baseline:
        return sorted((base if entry.is_baseline else entry).correct) if entry.correct and base.correct else []
    return sorted(set(entry.correct) & set(base.correct))


def _difference(entry: Entry, base: Entry) -> statistics.Difference:
    seeds = _common_seeds(entry, base)
    outcomes, of_base = _outcomes(entry, seeds), _outcomes(base, seeds)
    if len(seeds) > 1:
        return statistics.paired_difference(outcomes, of_base)
    return statistics.mcnemar(outcomes[0], of_base[0])


def _evidence(
    entry: Entry, base: Entry, difference: statistics.Difference, corrected_p: float, comparisons: int
) -> Evidence:
    seeds = _common_seeds(entry, base)
    verdict = statistics.verdict(float(difference.estimate), corrected_p)

    def needed(count: Callable[[np.ndarray, np.ndarray, int], int | None]) -> int | None:
        if verdict != "no evidence" or len(seeds) < 2:
            return None
        return count(_outcomes(entry, seeds), _outcomes(base, seeds), comparisons)

    return Evidence(
        reference=base.name,
        seeds=seeds,
        difference=float(difference.estimate),
        interval=(float(difference.low), float(difference.high)),
        p=float(difference.p),
        corrected_p=corrected_p,
        verdict=verdict,
        seeds_needed=needed(statistics.seeds_needed),
        messages_needed=needed(statistics.messages_needed),
    )
