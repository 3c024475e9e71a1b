"""Rows that are compared: the seeds of a strategy together, with the evidence for or against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

import strategies
from harness import baselines, statistics
from harness.errors import UserError
from harness.report.analysis.sweep import without_other_rates
from harness.results.names import row_name
from harness.results.record import Record
from harness.results.store import Store
from harness.results.suites import SavedSuite

AXES = ("strategy", "seed", "readout", "attention", "pad_to", "adapter")
# What is set for the machine's sake, and shows in nothing that a table tells.
NO_CONDITIONS = {"training": ("checkpoint_steps",), "engine": ("timeout_seconds", "restarts")}
DEFAULT_REFERENCE = "last_block"
# Between the names of rows that are the same runs.
SAME = " = "


@dataclass(frozen=True)
class Evidence:
    """An entry against the reference, on the seeds that ended well for both; accuracies as shares of 1.

    corrected_p: Holm's, over the table's comparisons. seeds_needed, messages_needed: what would probably settle a row
    without evidence; None where nothing is open, one seed was compared or no number would do.
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
    """All seeds of one strategy with what the configuration changed of it; ok: those that ended well.

    interval: 95%, of the mean test accuracy: over seeds and messages where two seeds or more ended well, else over
    messages only. unread: why its answers can't be taken together; incomparable: why not with the reference's.
    """

    name: str
    records: list[Record]
    ok: list[Record]
    interval: tuple[float, float] | None = None
    evidence: Evidence | None = None
    unread: str | None = None
    incomparable: str | None = None
    correct: dict[int, pd.Series] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> list[Record]:
        """Whose values the row tells: a row without a run that ended well tells what the first has measured."""
        return self.ok or self.records[:1]

    @property
    def is_baseline(self) -> bool:
        """Then nothing of it varies with the seed: its one run stands beside every seed of another entry."""
        return self.records[0].strategy_source.is_baseline

    @property
    def accuracy(self) -> float | None:
        """On test, mean over seeds."""
        return float(np.mean([record.metrics.test.accuracy for record in self.ok])) if self.ok else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test accuracy over seeds."""
        return float(np.std([record.metrics.test.accuracy for record in self.ok], ddof=1)) if len(self.ok) > 1 else None

    @property
    def failures(self) -> list[Record]:
        return [record for record in self.records if record.status != "ok"]


@dataclass(frozen=True)
class Group:
    """The records of one table, in the order of its rows. name_of: what the row of a record is called.

    suite: the name of the suite whose rows they are, if that is what they have in common. told: what a reader must
    know of rows that are not there. conditions: what they have in common otherwise.
    """

    records: list[Record]
    name_of: Callable[[Record], str] = row_name
    suite: str | None = None
    told: list[str] = field(default_factory=list)
    conditions: dict[str, object] = field(default_factory=dict)


def groups(records: list[Record], suites: Sequence[SavedSuite] = ()) -> list[Group]:
    """One for each table: each suite whose rows are compared with each other, then whatever shares its conditions."""
    compared = [group for suite in suites if not suite.is_published and (group := _of_suite(suite, records)).records]
    shown = {record.run_id for group in compared for record in group.records}
    return [*compared, *_by_conditions([record for record in records if record.run_id not in shown])]


def _of_suite(suite: SavedSuite, records: list[Record]) -> Group:
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in suite.rows:  # two may come to the same: what one says is what the other leaves to auto
        alike.setdefault(tuple(row.identities), []).append(row.name)
    names = {identity: SAME.join(rows) for identities, rows in alike.items() for identity in identities}
    order = list(names)
    found = sorted((one for one in records if one.identity in names), key=lambda one: order.index(one.identity))
    told = [f"skipped: {row.name}, {row.skipped}." for row in suite.rows if row.skipped]
    return Group(found, lambda record: names[record.identity], suite.name, told)


def _by_conditions(records: list[Record]) -> list[Group]:
    """Records that differ in strategy, readout, input and seed only stand together.

    A baseline stands at the end of each table that shares all conditions on which it depends.
    """
    alike: dict[str, list[Record]] = {}
    ran = [record for record in records if not record.strategy_source.is_baseline]
    for record in ran:
        if record.data:
            alike.setdefault(json.dumps(_conditions(record), sort_keys=True), []).append(record)
    for record in ran:
        if not record.data:  # its process was gone before it could tell
            homes = (key for key, table in alike.items() if _within(_conditions(record), _conditions(table[0])))
            alike.setdefault(next(homes, json.dumps(_conditions(record), sort_keys=True)), []).append(record)
    tables = list(alike.values())
    ran = [record for record in records if record.strategy_source.is_baseline]
    # Where there is no strategy, the baseline that depends on most makes the table.
    for record in sorted(ran, key=lambda record: -len(record.config)):
        homes = [table for table in tables if _within(_conditions(record), _conditions(table[0]))]
        for table in homes:
            table.append(record)
        if not homes:
            tables.append([record])
    known = [*strategies.names(), *baselines.NAMES]
    return [
        Group(sorted(table, key=lambda record: _place(record, known)), _names(table), conditions=_conditions(table[0]))
        for table in tables
    ]


def _names(table: list[Record]) -> Callable[[Record], str]:
    """Where a strategy's code has changed, or another file has its name, what is older stands in a row of its own."""
    newest = {
        row_name(record): record.strategy_source.sha256
        for record in sorted(table, key=lambda record: record.finished_at)
    }

    def name_of(record: Record) -> str:
        name, code = row_name(record), record.strategy_source.sha256
        return name if code == newest[name] else f"{name} [code {code[:6]}]"

    return name_of


def _place(record: Record, known: list[str]) -> tuple[bool, int]:
    """Where a row stands, whenever it was done: built-in strategies as `ftbench list` shows them, then others."""
    return record.strategy_source.is_baseline, known.index(record.strategy) if record.strategy in known else len(known)


def _conditions(record: Record) -> dict[str, object]:
    rest: dict[str, object] = {key: value for key, value in record.config.items() if key not in (*AXES, "features")}
    for part, keys in NO_CONDITIONS.items():
        if part in rest:
            rest[part] = {key: value for key, value in record.config[part].items() if key not in keys}
    if record.sweep_around:
        rest["optimizer"] = {**record.config["optimizer"], "learning_rate": record.sweep_around}
    if record.data:
        rest["data sha256"] = record.data.sha256
    if record.model.weights:
        rest["weights sha256"] = record.model.weights_sha256
    return rest


def _within(part: dict[str, object], whole: dict[str, object]) -> bool:
    """Whether `whole` has every entry of `part`, at any depth."""
    return all(
        _within(value, whole[key])
        if isinstance(value, dict) and isinstance(whole.get(key), dict)
        else key in whole and whole[key] == value
        for key, value in part.items()
    )


def compare(group: Group, store: Store, reference: str | None = None) -> list[Entry]:
    """The entries of one table, each with its interval and, but for the reference, its evidence.

    reference: the name of a strategy or row; where it is None or not among the rows, last_block or else the first.
    """
    named: dict[str, dict[int, Record]] = {}
    for record in without_other_rates(group.records):
        row = named.setdefault(group.name_of(record), {})
        if record.seed not in row or row[record.seed].finished_at <= record.finished_at:
            row[record.seed] = record  # again, with other settings for the machine's sake: the newest counts
    rows = {name: list(row.values()) for name, row in named.items()}
    entries = [Entry(name, row, [one for one in row if one.status == "ok"]) for name, row in rows.items()]
    for entry in entries:
        _read(entry, store)
    base = reference_of(entries, reference)
    rivals = [entry for entry in entries if entry is not base and _comparable(entry, base)]
    differences = [_difference(entry, base) for entry in rivals]
    corrected = statistics.holm(np.array([float(difference.p) for difference in differences]))
    for entry, difference, corrected_p in zip(rivals, differences, corrected, strict=True):
        entry.evidence = _evidence(entry, base, difference, float(corrected_p), len(rivals))
    return entries


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
    names = list(dict.fromkeys(name for of_row in rows for row in of_row for name in row.split(SAME)))
    if reference and reference not in names:
        raise UserError(f"REFERENCE={reference!r} is none of the rows: expected one of {', '.join(names)}.")


def _read(entry: Entry, store: Store) -> None:
    """Fill in which test messages each seed got right, and the interval."""
    if not entry.ok:
        return
    for record in entry.ok:
        frame = store.predictions(record.run_id)
        if frame is None:
            entry.unread = f"{record.run_id} has no predictions.csv"
            break
        entry.correct[record.seed] = (frame["label"] == frame["predicted"]).set_axis(frame["index"]).sort_index()
    first = next(iter(entry.correct.values()), None)
    if not entry.unread and not all(right.index.equals(first.index) for right in entry.correct.values()):
        entry.unread = "its seeds were tested on different messages"
    if len(entry.ok) == 1:
        entry.interval = entry.ok[0].metrics.test.interval
    elif not entry.unread:
        low, high = statistics.accuracy_interval(_cells(entry, list(entry.correct)))
        entry.interval = (float(low), float(high))


def _comparable(entry: Entry, base: Entry) -> bool:
    if entry.unread or base.unread or not entry.ok:
        return False
    if not base.ok:
        entry.incomparable = f"no run of {base.name} ended well"
    elif not _common(entry, base):
        entry.incomparable = f"it has no seed in common with {base.name}"
    elif entry.ok[0].data.sha256 != base.ok[0].data.sha256:
        entry.incomparable = f"it was tested on other data than {base.name}"
    elif not next(iter(entry.correct.values())).index.equals(next(iter(base.correct.values())).index):
        entry.incomparable = f"it was tested on other messages than {base.name}"
    return not entry.incomparable


def _cells(entry: Entry, seeds: list[int]) -> np.ndarray:
    """[seeds, messages], whether the model of a seed was right about a message."""
    of_seeds = list(entry.correct.values()) * len(seeds) if entry.is_baseline else [entry.correct[n] for n in seeds]
    return np.stack([right.to_numpy() for right in of_seeds])


def _common(entry: Entry, base: Entry) -> list[int]:
    """The seeds on which two entries are compared."""
    if entry.is_baseline or base.is_baseline:
        return sorted((base if entry.is_baseline else entry).correct) if entry.correct and base.correct else []
    return sorted(set(entry.correct) & set(base.correct))


def _difference(entry: Entry, base: Entry) -> statistics.Difference:
    seeds = _common(entry, base)
    ours, theirs = _cells(entry, seeds), _cells(base, seeds)
    return statistics.paired_difference(ours, theirs) if len(seeds) > 1 else statistics.mcnemar(ours[0], theirs[0])


def _evidence(
    entry: Entry, base: Entry, difference: statistics.Difference, corrected_p: float, comparisons: int
) -> Evidence:
    seeds = _common(entry, base)
    verdict = statistics.verdict(float(difference.estimate), corrected_p)

    def needed(count: Callable[[np.ndarray, np.ndarray, int], int | None]) -> int | None:
        if verdict != "no evidence" or len(seeds) < 2:
            return None
        return count(_cells(entry, seeds), _cells(base, seeds), comparisons)

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
