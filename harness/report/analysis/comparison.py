"""The rows of a table compared: the seeds of each strategy together, with the evidence for or against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from harness import statistics
from harness.errors import UserError
from harness.metrics import ACCURACY, METRICS, Metric, MetricName
from harness.report.analysis.entry import Entry, Evidence, Score
from harness.report.analysis.grouping import SAME, Group
from harness.report.analysis.sweep import without_other_rates
from harness.results.record import Record
from harness.results.store import Store

DEFAULT_REFERENCE = "last_block"


def compare(
    group: Group,
    store: Store,
    reference: str | None = None,
    metric: Metric = ACCURACY,
    price: float | None = None,
) -> list[Entry]:
    """The entries of one table, each with its interval and, but for the reference, its evidence.

    reference: the name of a strategy or row; where it is None or not among the rows, last_block or else the first.
    metric: what the entries are compared by. price: of an hour of a device, which they keep. Raises UserError for
    predictions that can't be read.
    """
    entries = [_entry(name, records, store, metric) for name, records in _rows(group, metric).items()]
    for entry in entries:
        entry.price = price
    base = reference_of(entries, reference)
    compared = [entry for entry in entries if entry is not base and _comparable(entry, base)]
    differences = [_difference(entry, base) for entry in compared]
    corrected = statistics.holm(np.array([float(difference.p) for difference in differences]))
    for entry, difference, corrected_p in zip(compared, differences, corrected, strict=True):
        entry.evidence = _evidence(entry, base, difference, float(corrected_p), len(compared))
    return entries


def is_unbalanced(entry: Entry) -> bool:
    """Whether a class has less than half of its even share of the test messages."""
    if not entry.predictions:
        return False
    counts = np.bincount(_labels(entry), minlength=len(entry.ok[0].ok_data.classes))
    return bool(counts.min() < counts.mean() / 2)


def _rows(group: Group, metric: Metric) -> dict[str, list[Record]]:
    """The newest record of each seed, by name of the row."""
    rows: dict[str, dict[int, Record]] = {}
    for record in without_other_rates(group.records, metric.name):
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


def _entry(name: str, records: list[Record], store: Store, metric: Metric) -> Entry:
    """With the predictions of each seed, and the intervals."""
    entry = Entry(name, records, [record for record in records if record.status == "ok"], metric=metric)
    if not entry.ok:
        return entry
    for record in entry.ok:
        frame = store.predictions(record.run_id)
        if frame is None:
            entry.unpaired = entry.unpaired or f"{record.run_id} has no predictions.csv"
            continue
        entry.predictions[record.seed] = _by_class_index(frame, record)
    seeds = list(entry.predictions.values())
    if not entry.unpaired and not all(frame.index.equals(seeds[0].index) for frame in seeds):
        entry.unpaired = "its seeds were tested on different messages"
    if len(entry.ok) == 1:
        entry.interval = entry.ok[0].ok_metrics.test.interval
    elif not entry.unpaired:
        low, high = statistics.accuracy_interval(_outcomes(entry, list(entry.predictions)))
        entry.interval = (float(low), float(high))
    if not entry.unpaired:
        entry.scores = _scores(entry)
    return entry


def _by_class_index(frame: pd.DataFrame, record: Record) -> pd.DataFrame:
    """label and predicted as indices of classes, by index of the message, in order. frame: a run's predictions."""
    index = {name: position for position, name in enumerate(record.ok_data.classes)}
    if unknown := {*frame["label"], *frame["predicted"]} - set(index):
        raise UserError(
            f"predictions of {record.run_id!r} can't be read as predictions (class {min(unknown)!r} is not in the "
            "record): move the folder away."
        )
    found = {column: frame[column].map(index).to_numpy() for column in ("label", "predicted")}
    return pd.DataFrame(found, index=frame["index"]).sort_index()


def _scores(entry: Entry) -> dict[MetricName, Score]:
    labels, predicted = _labels(entry), _predicted(entry, list(entry.predictions))
    return {
        metric.name: Score(
            float(metric(labels, predicted).mean()), statistics.metric_interval(metric, labels, predicted)
        )
        for metric in METRICS.values()
        if metric is not ACCURACY
    }


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
    elif not _messages(entry).equals(_messages(base)):
        entry.incomparable = f"it was tested on other messages than {base.name}"
    return not entry.incomparable


def _messages(entry: Entry) -> pd.Index:
    return next(iter(entry.predictions.values())).index


def _labels(entry: Entry) -> np.ndarray:
    """[messages], indices of classes."""
    return next(iter(entry.predictions.values()))["label"].to_numpy()


def _predicted(entry: Entry, seeds: list[int]) -> np.ndarray:
    """[seeds, messages], indices of classes."""
    if entry.runs_once:
        return np.stack([next(iter(entry.predictions.values()))["predicted"].to_numpy()] * len(seeds))
    return np.stack([entry.predictions[seed]["predicted"].to_numpy() for seed in seeds])


def _outcomes(entry: Entry, seeds: list[int]) -> np.ndarray:
    """[seeds, messages], whether the model of a seed classified a message right."""
    return _predicted(entry, seeds) == _labels(entry)


def _common_seeds(entry: Entry, base: Entry) -> list[int]:
    """The seeds on which two entries are compared."""
    if entry.runs_once or base.runs_once:
        return (
            sorted((base if entry.runs_once else entry).predictions) if entry.predictions and base.predictions else []
        )
    return sorted(set(entry.predictions) & set(base.predictions))


def _difference(entry: Entry, base: Entry) -> statistics.Difference:
    seeds = _common_seeds(entry, base)
    if entry.metric is not ACCURACY:
        pair = (_predicted(one, seeds) for one in (entry, base))
        return statistics.metric_difference(entry.metric, _labels(base), *pair)
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
        if verdict != "no evidence" or len(seeds) < 2 or entry.metric is not ACCURACY:
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
