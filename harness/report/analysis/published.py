"""The rows of a suite judged one by one against the figures published for them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.results.quality import AllMetrics, Metrics
from harness.results.record import Record
from harness.results.suites import SavedRow, SavedSuite
from harness.statistics import next_run_interval

PARTS = {"train": "train", "validation": "val.", "test": "test"}
ROUNDING = 0.005001  # of a percentage with two decimals


@dataclass(frozen=True)
class Figure:
    """Accuracies of one split in %. ours: mean over seeds. interval: prediction interval for one more run of ours.

    verdict: `agrees`, `differs` or the reason why it is not judged.
    """

    published: float | None
    ours: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class JudgedRow:
    """seeds: of the runs that are ok. minutes: their mean. figures: by split, a key of PARTS."""

    saved: SavedRow
    seeds: list[int]
    figures: dict[str, Figure]
    minutes: float | None
    verdict: str


def judge(suite: SavedSuite, records: list[Record]) -> list[JudgedRow]:
    newest = {record.identity: record for record in records}  # the oldest comes first
    return [_judged(row, [newest[key] for key in row.identities if key in newest]) for row in suite.rows]


def _judged(row: SavedRow, records: list[Record]) -> JudgedRow:
    ok = [record for record in records if record.status == "ok"]
    reason = _why_not_judged(row, records, ok)
    figures = {part: _figure(row, part, [record.ok_metrics for record in ok], reason) for part in PARTS}
    differing = [PARTS[part] for part, figure in figures.items() if figure.verdict == "differs"]
    return JudgedRow(
        saved=row,
        seeds=[record.seed for record in ok],
        figures=figures,
        minutes=sum(record.seconds.total for record in ok) / len(ok) / 60 if ok else None,
        verdict=reason or (f"differs: {', '.join(differing)}" if differing else "agrees"),
    )


def _why_not_judged(row: SavedRow, records: list[Record], ok: list[Record]) -> str | None:
    """ok: those of `records` whose status is ok."""
    if row.skipped:
        return f"not judged: skipped, {row.skipped.partition(':')[0]}"
    if row.published is None:
        return "not judged: nothing published"
    if row.published.copy_of:
        return f"not judged: computes the same as row {row.published.copy_of}"
    if row.changed:
        return f"not judged: {', '.join(row.changed)}"
    if not ok:
        return f"not judged: {records[0].status}" if records else "not judged: not run"
    return None


def _figure(row: SavedRow, part: str, metrics: list[AllMetrics], reason: str | None) -> Figure:
    """reason: why the row is not judged, if so."""
    measured = [_of_part(each, part) for each in metrics]
    ours = 100 * sum(each.accuracy for each in measured) / len(measured) if measured else None
    published: float | None = getattr(row.published, part) if row.published else None
    if reason or row.published is None or published is None:
        return Figure(published, ours, None, reason or "not judged: nothing published")
    low, high = next_run_interval([each.correct for each in measured], measured[0].total)
    interval = 100 * low, 100 * high
    if part in row.published.misprint:
        return Figure(published, ours, interval, "not judged: misprint")
    agrees = interval[0] - ROUNDING <= published <= interval[1] + ROUNDING
    return Figure(published, ours, interval, "agrees" if agrees else "differs")


def _of_part(metrics: AllMetrics, part: str) -> Metrics:
    """For train, of the texts in the last epoch's batches: a textbook's loop evaluates no others."""
    return (metrics.train_batches or metrics.train) if part == "train" else getattr(metrics, part)
