"""Rows of a suite's file beside the figures that were published of them, judged one by one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.results.record import AllMetrics, Metrics, Record
from harness.results.suites import SavedRow, SavedSuite
from harness.statistics import next_run_interval

PARTS = {"train": "train", "validation": "val.", "test": "test"}
ROUNDING = 0.005001  # of a percentage with two decimals
NARROW_COLUMNS = 160


@dataclass(frozen=True)
class Figure:
    """Percentages of one part. ours: mean over seeds. interval: where one more run of ours would fall.

    verdict: `agrees`, `differs` or why it is not judged.
    """

    published: float | None
    ours: float | None
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Line:
    """A row with what came of it; seeds: of the runs that ended well. minutes: their mean."""

    row: SavedRow
    seeds: list[int]
    figures: dict[str, Figure]
    minutes: float | None
    verdict: str


def judged(suite: SavedSuite, records: list[Record]) -> list[Line]:
    newest = {record.identity: record for record in records}  # they come oldest first
    return [_line(row, [newest[key] for key in row.identities if key in newest]) for row in suite.rows]


def _line(row: SavedRow, records: list[Record]) -> Line:
    ok = [record for record in records if record.status == "ok"]
    reason = _why_not_judged(row, records, ok)
    figures = {part: _figure(row, part, [record.metrics for record in ok], reason) for part in PARTS}
    differing = [PARTS[part] for part, figure in figures.items() if figure.verdict == "differs"]
    return Line(
        row=row,
        seeds=[record.seed for record in ok],
        figures=figures,
        minutes=sum(record.seconds.total for record in ok) / len(ok) / 60 if ok else None,
        verdict=reason or (f"differs: {', '.join(differing)}" if differing else "agrees"),
    )


def _why_not_judged(row: SavedRow, records: list[Record], ok: list[Record]) -> str | None:
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
    published = getattr(row.published, part) if row.published else None
    measured = [_of_part(each, part) for each in metrics]
    ours = 100 * sum(each.accuracy for each in measured) / len(measured) if measured else None
    if reason:
        return Figure(published, ours, None, reason)
    low, high = next_run_interval([each.correct for each in measured], measured[0].total)
    interval = 100 * low, 100 * high
    if part in row.published.misprint:
        return Figure(published, ours, interval, "not judged: misprint")
    agrees = interval[0] - ROUNDING <= published <= interval[1] + ROUNDING
    return Figure(published, ours, interval, "agrees" if agrees else "differs")


def _of_part(metrics: AllMetrics, part: str) -> Metrics:
    """Of the training texts those that the last epoch's batches held: a textbook's loop evaluates no others."""
    return (metrics.train_batches or metrics.train) if part == "train" else getattr(metrics, part)


TITLES = (
    "#",
    "row",
    "seeds",
    *(f"{title} %: ours [95%] / published" for title in PARTS.values()),
    "minutes",
    "verdict",
)
SHORT_TITLES = ("#", "row", "test %: ours [95%] / published", "verdict")


def cells(line: Line) -> list[str]:
    """In the order of TITLES."""
    published = line.row.published
    minutes = published.minutes if published else None
    return [
        str(published.number) if published else "",
        line.row.name,
        ",".join(map(str, line.seeds)) or "-",
        *(_shown(figure, part, line.row) for part, figure in line.figures.items()),
        f"{_number(line.minutes)} / {_number(minutes)}",
        line.verdict,
    ]


def _shown(figure: Figure, part: str, row: SavedRow) -> str:
    interval = f" [{figure.interval[0]:.1f}, {figure.interval[1]:.1f}]" if figure.interval else ""
    mark = " misprint" if row.published and part in row.published.misprint else ""
    return f"{_number(figure.ours)}{interval} / {_number(figure.published)}{mark}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def title(suite: SavedSuite) -> str:
    return f"Published figures: {suite.source or suite.name}"


def notes(lines: list[Line]) -> list[str]:
    """What a reader must know to read the verdicts right."""
    told = [
        "[95%]: prediction interval for one more run of ours on the same texts, which a published figure, itself one "
        "run, should fall into. Several seeds: by how much they vary. One seed: as if texts were answered right or "
        "wrong independently of each other, which may be too narrow where runs as a whole vary."
    ]
    verdicts = [figure.verdict for line in lines for figure in line.figures.values()]
    judged_figures = sum(verdict in ("agrees", "differs") for verdict in verdicts)
    if judged_figures:
        told.append(
            f"{verdicts.count('differs')} of {judged_figures} judged figures differ; "
            f"by chance alone {0.05 * judged_figures:.1f} would."
        )
    told.append("train %: of the texts in the last epoch's batches, so without those of a dropped one.")
    told.append("minutes: ours from the data to the final evaluation, on this machine; the published ones on theirs.")
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line.row.skipped:
            reasons.setdefault(line.row.skipped, []).append(_label(line.row))
    told += [f"skipped, {', '.join(rows)}: {reason}." for reason, rows in reasons.items()]
    told += [f"{_label(line.row)}: {line.row.published.note}" for line in lines if _has_note(line.row)]
    return [text[0].upper() + text[1:] for text in told]


def _label(row: SavedRow) -> str:
    return f"row {row.published.number}" if row.published else row.name


def _has_note(row: SavedRow) -> bool:
    return bool(row.published and row.published.note)


def print_published(console: Console, suite: SavedSuite, records: list[Record]) -> None:
    lines = judged(suite, records)
    titles = SHORT_TITLES if console.width < NARROW_COLUMNS else TITLES
    table = Table(title=escape(title(suite)), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for name in titles:
        table.add_column(escape(name), justify="left" if name in ("row", "verdict") else "right", overflow="fold")
    for line in lines:
        shown = dict(zip(TITLES, map(escape, cells(line)), strict=True))
        style = {"agrees": "green", "differs": "bold red"}.get(line.verdict.partition(":")[0], "dim")
        shown["verdict"] = f"[{style}]{shown['verdict']}[/]"
        table.add_row(*(shown[name] for name in titles))
    console.print(table)
    for text in notes(lines):
        console.print(f"  [dim]{escape(text)}[/]", highlight=False)


def published_comparison(suite: SavedSuite, records: list[Record]) -> dict[str, Any]:
    """The table as data, beside the others of comparison.json."""
    lines = judged(suite, records)
    return {
        "conditions": title(suite),
        "notes": notes(lines),
        "rows": [
            {
                "name": line.row.name,
                "number": line.row.published.number if line.row.published else None,
                "seeds": line.seeds,
                "figures": {part: asdict(figure) for part, figure in line.figures.items()},
                "minutes": line.minutes,
                "verdict": line.verdict,
                "skipped": line.row.skipped,
            }
            for line in lines
        ],
    }
