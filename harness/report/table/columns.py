"""The comparison table's columns, in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.metrics import ACCURACY, METRICS, Metric
from harness.report.analysis.comparison import is_unbalanced
from harness.report.analysis.entry import Entry, Evidence
from harness.report.table.column import Column, Measure, known, measured_column, over_seeds
from harness.results.record import Record

FILES_ONLY = 99  # the rank of a column that a terminal shows only on request
UNMEASURED = "-"
VERDICTS = ("better", "reference", "no evidence", "worse")


def _metric(split: str, key: str) -> Measure:
    def measure(record: Record) -> float | None:
        part = getattr(record.metrics, split) if record.metrics else None
        return getattr(part, key) if part else None

    return measure


def _accuracy(title: str, split: str, rank: int) -> Column:
    return measured_column(title, _metric(split, "accuracy"), lambda accuracy: f"{100 * accuracy:.2f}", max, rank)


def _rate(title: str, key: str, rank: int) -> Column:
    def measure(record: Record) -> float | None:
        return getattr(record.throughput, key) if record.throughput else None

    return replace(measured_column(title, measure, lambda rate: f"{rate:,.0f}", max, rank, np.median), is_cost=True)


def reused(entry: Entry) -> bool:
    return any(record.prefix and record.prefix.reused_tokens for record in entry.timed)


def _grown(record: Record) -> float | None:
    return record.memory.grown_bytes if record.memory else None


def _f1(record: Record) -> float | None:
    """F1 of the second of two classes, the positive one (spam), else the mean over classes."""
    scores = list(record.metrics.test.f1.values()) if record.metrics else []
    return (scores[1] if len(scores) == 2 else sum(scores) / len(scores)) if scores else None


def _test_with_interval(entry: Entry) -> str:
    accuracy = f"{100 * known(_TEST(entry)):.2f}"
    return f"{accuracy} {_percent(entry.interval)}" if entry.interval else accuracy


def _percent(interval: tuple[float, float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _scaled(title: str, key: str, rank: int) -> Column:
    """After temperature scaling. It can't win with the seeds alone that have a temperature."""

    def measure(record: Record) -> float | None:
        return getattr(record.calibration, key) if record.calibration else None

    column = measured_column(title, measure, lambda value: f"{value:.3f}", min, rank)
    return replace(column, is_complete=lambda entry: all(measure(record) is not None for record in entry.shown))


def _score_column(metric: Metric, rank: int) -> Column:
    def value(entry: Entry) -> float | None:
        return entry.scores[metric.name].mean if metric.name in entry.scores else None

    def interval(entry: Entry) -> tuple[float, float] | None:
        return entry.scores[metric.name].interval if metric.name in entry.scores else None

    def show(entry: Entry) -> str:
        score = entry.scores[metric.name]
        return f"{100 * score.mean:.2f} {_percent(score.interval)}"

    return Column(f"{metric.title} % [95%]", value, show, max, rank, interval=interval)


def _score_columns(entries: list[Entry]) -> list[Column]:
    """Of metrics that the table does not compare by: a terminal shows them where classes are unbalanced."""
    ranks = {"macro_f1": 7, "balanced_accuracy": 17, "mcc": 18}
    unbalanced = any(map(is_unbalanced, entries))
    return [
        _score_column(METRICS[name], rank if unbalanced else FILES_ONLY)
        for name, rank in ranks.items()
        if name != entries[0].metric.name
    ]


def _seeds_column(several: bool, same: bool) -> Column:
    """same: all strategies have the same single seed, which only files show."""

    def value(entry: Entry) -> float | None:
        if entry.runs_once:
            return None
        return len(entry.ok) if several else entry.records[0].seed

    def show(entry: Entry) -> str:
        return f"{len(entry.ok)} of {len(entry.records)}" if several and entry.failures else str(value(entry))

    rank = FILES_ONLY if same else 2
    return (
        Column("seeds", value, show, None, rank, sort_key=lambda e: -len(e.ok))
        if several
        else Column("seed", value, show, None, rank)
    )


def _difference_column(reference: str) -> Column:
    return Column(
        f"vs {reference}",
        lambda entry: entry.evidence and entry.evidence.difference,
        lambda entry: _shown_difference(entry.evidence) if entry.evidence else UNMEASURED,
        None,
        6,
        interval=lambda entry: entry.evidence and entry.evidence.interval,
        sort_key=lambda entry: 0.0 if entry.name == reference else entry.evidence and -entry.evidence.difference,
    )


def _shown_difference(evidence: Evidence) -> str:
    return f"{100 * evidence.difference:+.2f} {_percent(evidence.interval)}"


def _verdict_column(reference: str) -> Column:
    def value(entry: Entry) -> str | None:
        return "reference" if entry.name == reference else entry.evidence and entry.evidence.verdict

    def sort_key(entry: Entry) -> float | None:
        verdict = value(entry)
        return VERDICTS.index(verdict) if verdict else None

    return Column("verdict", value, lambda entry: value(entry) or UNMEASURED, None, 1, sort_key=sort_key)


def _scaled_columns(entries: list[Entry]) -> list[Column]:
    """Records of older versions have no temperature."""
    if not any(record.calibration for entry in entries for record in entry.ok):
        return []
    return [_scaled("scaled ECE", "test_calibration_error", 16), _scaled("scaled loss", "test_loss", FILES_ONLY)]


def _forgetting_columns(entries: list[Entry]) -> list[Column]:
    def rise(record: Record) -> float | None:
        return record.forgetting.rise if record.forgetting else None

    column = measured_column("forgetting", rise, lambda nats: f"{nats:+.3f}", min, 9)
    return [column] if any(column.value(entry) is not None for entry in entries) else []


def _energy_columns(entries: list[Entry]) -> list[Column]:
    """Watt-hours, only where they were measured."""
    parts = {tuple(sorted(one.energy.parts)) for e in entries for one in e.ok if one.energy and one.energy.parts}

    def comparable(entry: Entry) -> bool:
        return len(parts) == 1 and not reused(entry)

    def column(title: str, key: str, rank: int) -> Column:
        def measure(record: Record) -> float | None:
            return getattr(record.energy, key) if record.energy else None

        measured = measured_column(title, measure, lambda value: f"{_digits(value)} Wh", min, rank, np.median)
        return replace(measured, is_complete=comparable, is_cost=True)

    found = [column("energy", "watt_hours", 6), column("per 1000 predictions", "per_thousand_predictions", 12)]
    return [column for column in found if any(column.value(entry) is not None for entry in entries)]


def _cost_columns(entries: list[Entry]) -> list[Column]:
    if entries[0].price is None:
        return []

    def cost(entry: Entry) -> float:
        return float(np.median(entry.costs))

    def show(entry: Entry) -> str:
        return cost_text(cost(entry)) + ("*" if reused(entry) else "")

    return [Column("cost", cost, show, min, 4, is_complete=lambda entry: not reused(entry), is_cost=True)]


def cost_text(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 10 else _digits(cost)


def _digits(value: float) -> str:
    """With three that count."""
    return np.format_float_positional(value, precision=3, fractional=False, trim="-")


_TEST = over_seeds(_metric("test", "accuracy"), np.mean)


def seconds_of(entry: Entry) -> float:
    """Median over the runs that were trained by themselves."""
    return float(np.median([record.seconds.total for record in entry.timed]))


def several_seeds(entries: list[Entry]) -> bool:
    return any(len(entry.records) > 1 for entry in entries)


def columns(entries: list[Entry]) -> list[Column]:
    """The columns of a table, in order."""
    several = several_seeds(entries)
    compared = [entry.evidence.reference for entry in entries if entry.evidence]
    same = not several and len({entry.records[0].seed for entry in entries if not entry.is_baseline}) < 2
    found = [
        _seeds_column(several, same),
        measured_column(
            "trained", lambda record: record.model.trainable_parameters, lambda count: f"{count:,.0f}", min, 4
        ),
        measured_column("test loss", _metric("test", "loss"), lambda loss: f"{loss:.3f}", min, 7),
        _accuracy("train %", "train", 10),
        _accuracy("val. %", "validation", 9),
        Column("test % [95%]", _TEST, _test_with_interval, max, 0, interval=lambda entry: entry.interval),
    ]
    if (metric := entries[0].metric) is not ACCURACY:
        found.append(_score_column(metric, 0))
    if several:
        found.append(Column("sd", lambda e: e.deviation, lambda e: f"{100 * known(e.deviation):.2f}", None, 8))
    if compared:
        found += [_difference_column(compared[0]), _verdict_column(compared[0])]
    return [
        *found,
        _accuracy("unseen %", "test_clean", 11),
        *_score_columns(entries),
        measured_column("F1", _f1, lambda score: f"{score:.3f}", max, 14),
        measured_column("ROC AUC", _metric("test", "roc_auc"), lambda area: f"{area:.3f}", max, 15),
        measured_column("ECE", _metric("test", "calibration_error"), lambda error: f"{error:.3f}", min, 16),
        *_scaled_columns(entries),
        *_forgetting_columns(entries),
        _rate("examples/s", "examples_per_second", 13),
        _rate("real tok./s", "real_tokens_per_second", 12),
        replace(measured_column("memory", _grown, _bytes, min, 5, np.median), is_cost=True),
        Column(
            "time",
            seconds_of,
            lambda entry: f"{known(seconds_of(entry)):.1f} s" + ("*" if reused(entry) else ""),
            min,
            3,
            is_complete=lambda entry: not reused(entry),
            is_cost=True,
        ),
        *_energy_columns(entries),
        *_cost_columns(entries),
    ]


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
