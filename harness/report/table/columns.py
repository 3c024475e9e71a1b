"""The comparison table's columns and rows: what is compared, how it is written, which is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.report.analysis.baselines import MARK, no_better_than_length
from harness.report.analysis.comparison import Entry
from harness.results.record import Record

Measure = Callable[[Record], float | None]
FILES_ONLY = 99  # the rank of a column that no terminal shows unless it is asked for
UNMEASURED = "-"
VERDICTS = ("better", "reference", "no evidence", "worse")


def _competes(entry: Entry) -> bool:
    return bool(entry.ok) and not entry.is_baseline


@dataclass(frozen=True)
class Column:
    """title; value: what is compared, None where it was not measured; show: how it is written; best: which wins.

    rank: columns with the highest are left out first where a terminal is too narrow. is_whole: whether the value is all
    that there is of it; a winner whose value is not is no winner. interval: 95%, of the value. place: where an entry
    stands when rows are sorted, the smallest first, None last; by default as `best` says.
    """

    title: str
    value: Callable[[Entry], float | str | None]
    show: Callable[[Entry], str]
    best: Callable[[Sequence[float]], float] | None
    rank: int
    is_whole: Callable[[Entry], bool] = lambda entry: True
    interval: Callable[[Entry], tuple[float, float] | None] | None = None
    place: Callable[[Entry], float | None] | None = None

    @property
    def name(self) -> str:
        """The title without its unit and what is in brackets: `test` of "test % [95%]"."""
        return self.title.partition(" [")[0].removesuffix(" %")

    def place_of(self, entry: Entry) -> float | None:
        if self.place:
            return self.place(entry)
        value = self.value(entry)
        return -value if self.best is max and value is not None else value


def _over_seeds(measure: Measure, summary: Callable[[list[float]], float]) -> Callable[[Entry], float | None]:
    def value(entry: Entry) -> float | None:
        measured = [one for one in map(measure, entry.shown) if one is not None]
        if len(measured) < 2:
            return measured[0] if measured else None
        return float(summary(measured))

    return value


def _column(
    title: str,
    measure: Measure,
    show: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
    rank: int,
    summary: Callable[[list[float]], float] = np.mean,
) -> Column:
    value = _over_seeds(measure, summary)
    return Column(title, value, lambda entry: show(value(entry)), best, rank)


def _metric(split: str, key: str) -> Measure:
    def measure(record: Record) -> float | None:
        part = getattr(record.metrics, split) if record.metrics else None
        return getattr(part, key) if part else None

    return measure


def _accuracy(title: str, split: str, rank: int) -> Column:
    return _column(title, _metric(split, "accuracy"), lambda share: f"{100 * share:.2f}", max, rank)


def _rate(title: str, key: str, rank: int) -> Column:
    def measure(record: Record) -> float | None:
        return getattr(record.throughput, key) if record.throughput else None

    return _column(title, measure, lambda rate: f"{rate:,.0f}", max, rank, np.median)


def reused(entry: Entry) -> bool:
    return any(record.prefix and record.prefix.reused_tokens for record in entry.shown)


def _grown(record: Record) -> float | None:
    return record.memory.grown_bytes if record.memory else None


def _f1(record: Record) -> float | None:
    """F1 of the second of two classes, which is the one looked for (spam), else the mean over classes."""
    scores = list(record.metrics.test.f1.values()) if record.metrics else []
    return (scores[1] if len(scores) == 2 else sum(scores) / len(scores)) if scores else None


def _test_with_interval(entry: Entry) -> str:
    accuracy = f"{100 * _TEST(entry):.2f}"
    return f"{accuracy} {_percent(entry.interval)}" if entry.interval else accuracy


def _percent(interval: tuple[float, float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _seeds_column(several: bool, alike: bool) -> Column:
    """alike: one seed for all is told by no column but in files."""

    def value(entry: Entry) -> float | None:
        if entry.is_baseline:
            return None
        return len(entry.ok) if several else entry.records[0].seed

    def show(entry: Entry) -> str:
        return f"{len(entry.ok)} of {len(entry.records)}" if several and entry.failures else str(value(entry))

    rank = FILES_ONLY if alike else 2
    return (
        Column("seeds", value, show, None, rank, place=lambda e: -len(e.ok))
        if several
        else Column("seed", value, show, None, rank)
    )


def _difference_column(reference: str) -> Column:
    return Column(
        f"vs {reference}",
        lambda entry: entry.evidence and entry.evidence.difference,
        lambda entry: f"{100 * entry.evidence.difference:+.2f} {_percent(entry.evidence.interval)}",
        None,
        6,
        interval=lambda entry: entry.evidence and entry.evidence.interval,
        place=lambda entry: 0.0 if entry.name == reference else entry.evidence and -entry.evidence.difference,
    )


def _verdict_column(reference: str) -> Column:
    def value(entry: Entry) -> str | None:
        return "reference" if entry.name == reference else entry.evidence and entry.evidence.verdict

    def place(entry: Entry) -> float | None:
        verdict = value(entry)
        return VERDICTS.index(verdict) if verdict else None

    return Column("verdict", value, value, None, 1, place=place)


_TEST = _over_seeds(_metric("test", "accuracy"), np.mean)
_SECONDS = _over_seeds(lambda record: record.seconds.total, np.median)


def several_seeds(entries: list[Entry]) -> bool:
    return any(len(entry.records) > 1 for entry in entries)


def columns(entries: list[Entry]) -> list[Column]:
    """What a table tells of its entries, in order."""
    several = several_seeds(entries)
    compared = [entry.evidence.reference for entry in entries if entry.evidence]
    alike = not several and len({entry.records[0].seed for entry in entries if not entry.is_baseline}) < 2
    found = [
        _seeds_column(several, alike),
        _column("trained", lambda record: record.model.trainable_parameters, lambda count: f"{count:,.0f}", min, 4),
        _column("test loss", _metric("test", "loss"), lambda loss: f"{loss:.3f}", min, 7),
        _accuracy("train %", "train", 10),
        _accuracy("val. %", "validation", 9),
        Column("test % [95%]", _TEST, _test_with_interval, max, 0, interval=lambda entry: entry.interval),
    ]
    if several:
        found.append(Column("sd", lambda e: e.deviation, lambda e: f"{100 * e.deviation:.2f}", None, 8))
    if compared:
        found += [_difference_column(compared[0]), _verdict_column(compared[0])]
    return [
        *found,
        _accuracy("unseen %", "test_clean", 11),
        _column("F1", _f1, lambda score: f"{score:.3f}", max, 14),
        _column("ROC AUC", _metric("test", "roc_auc"), lambda area: f"{area:.3f}", max, 15),
        _column("ECE", _metric("test", "calibration_error"), lambda error: f"{error:.3f}", min, 16),
        _rate("examples/s", "examples_per_second", 13),
        _rate("real tok./s", "real_tokens_per_second", 12),
        _column("memory", _grown, _bytes, min, 5, np.median),
        Column(
            "time",
            _SECONDS,
            lambda entry: f"{_SECONDS(entry):.1f} s" + ("*" if reused(entry) else ""),
            min,
            3,
            is_whole=lambda entry: not reused(entry),
        ),
    ]


@dataclass(frozen=True)
class Row:
    name: str
    cells: list[str]
    best: list[bool]
    failure: str | None


def rows(entries: list[Entry]) -> list[Row]:
    """One row a strategy. One whose runs all failed keeps what was measured; every failure is told."""
    shown = columns(entries)
    winners = [_winner(column, entries) if len(entries) > 1 else None for column in shown]
    return [_row(entry, shown, winners, no_better_than_length(entry, entries)) for entry in entries]


def _winner(column: Column, entries: list[Entry]) -> float | None:
    if not column.best:
        return None
    values = [column.value(entry) for entry in entries if _competes(entry)]
    measured = [value for value in values if value is not None]
    return column.best(measured) if measured else None


def _row(entry: Entry, shown: list[Column], winners: list[float | None], marked: bool) -> Row:
    cells, best = [], []
    for column, winner in zip(shown, winners, strict=True):
        value = column.value(entry)
        cells.append(UNMEASURED if value is None else column.show(entry))
        best.append(winner is not None and value == winner and _competes(entry) and column.is_whole(entry))
    return Row(entry.name + (f" {MARK}" if marked else ""), cells, best, _failure(entry))


def _failure(entry: Entry) -> str | None:
    told = [f"{record.status}: {record.reason}" for record in entry.failures]
    if len(entry.records) > 1:
        told = [f"seed {record.seed} {line}" for record, line in zip(entry.failures, told, strict=True)]
    return "; ".join(told) or None


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
