"""The table of rows beside published figures: in the terminal, as Markdown and as data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.analysis.published import PARTS, Figure, JudgedRow, judge
from harness.report.table.markdown import cell, markdown_table
from harness.results.record import Record
from harness.results.suites import SavedRow, SavedSuite

PUBLISHED_TITLES = (
    "#",
    "row",
    "seeds",
    *(f"{title} %: ours [95%] / published" for title in PARTS.values()),
    "minutes",
    "verdict",
)
NARROW_COLUMNS = 160
NARROW_TITLES = ("#", "row", "test %: ours [95%] / published", "verdict")


def published_cells(row: JudgedRow) -> list[str]:
    """In the order of PUBLISHED_TITLES."""
    published = row.saved.published
    minutes = published.minutes if published else None
    return [
        str(published.number) if published else "",
        row.saved.name,
        ",".join(map(str, row.seeds)) or "-",
        *(_shown(figure, part, row.saved) for part, figure in row.figures.items()),
        f"{_number(row.minutes)} / {_number(minutes)}",
        row.verdict,
    ]


def _shown(figure: Figure, part: str, row: SavedRow) -> str:
    interval = f" [{figure.interval[0]:.1f}, {figure.interval[1]:.1f}]" if figure.interval else ""
    mark = " misprint" if row.published and part in row.published.misprint else ""
    return f"{_number(figure.ours)}{interval} / {_number(figure.published)}{mark}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def published_title(suite: SavedSuite) -> str:
    return f"Published figures: {suite.source or suite.name}"


def published_notes(rows: list[JudgedRow]) -> list[str]:
    """What a reader must know to interpret the verdicts."""
    notes = [
        "[95%]: prediction interval for one more run of ours on the same texts, which a published figure, itself one "
        "run, should fall into. Several seeds: by how much they vary. One seed: as if texts were answered right or "
        "wrong independently of each other, which may be too narrow where runs as a whole vary."
    ]
    verdicts = [figure.verdict for row in rows for figure in row.figures.values()]
    judged_figures = sum(verdict in ("agrees", "differs") for verdict in verdicts)
    if judged_figures:
        notes.append(
            f"{verdicts.count('differs')} of {judged_figures} judged figures differ; "
            f"by chance alone {0.05 * judged_figures:.1f} would."
        )
    notes.append("train %: of the texts in the last epoch's batches, so without those of a dropped one.")
    notes.append("minutes: ours from the data to the final evaluation, on this machine; the published ones on theirs.")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.saved.skipped:
            reasons.setdefault(row.saved.skipped, []).append(_label(row.saved))
    notes += [f"skipped, {', '.join(labels)}: {reason}." for reason, labels in reasons.items()]
    notes += [
        f"{_label(row.saved)}: {published.note}"
        for row in rows
        if (published := row.saved.published) and published.note
    ]
    return [text[0].upper() + text[1:] for text in notes]


def _label(row: SavedRow) -> str:
    return f"row {row.published.number}" if row.published else row.name


def print_published(console: Console, suite: SavedSuite, records: list[Record]) -> None:
    rows = judge(suite, records)
    titles = NARROW_TITLES if console.width < NARROW_COLUMNS else PUBLISHED_TITLES
    table = Table(title=escape(published_title(suite)), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for name in titles:
        table.add_column(escape(name), justify="left" if name in ("row", "verdict") else "right", overflow="fold")
    for row in rows:
        shown = dict(zip(PUBLISHED_TITLES, map(escape, published_cells(row)), strict=True))
        style = {"agrees": "green", "differs": "bold red"}.get(row.verdict.partition(":")[0], "dim")
        shown["verdict"] = f"[{style}]{shown['verdict']}[/]"
        table.add_row(*(shown[name] for name in titles))
    console.print(table)
    for text in published_notes(rows):
        console.print(f"  [dim]{escape(text)}[/]", highlight=False)


def published_markdown(suite: SavedSuite, records: list[Record]) -> str:
    rows = judge(suite, records)
    cells = [[cell(text) for text in published_cells(row)] for row in rows]
    notes = [f"- {cell(note)}" for note in published_notes(rows)]
    table = markdown_table(PUBLISHED_TITLES, cells, left=0)
    return "\n".join([f"### {cell(published_title(suite))}", "", *table, "", *notes, ""])


def published_comparison(suite: SavedSuite, records: list[Record]) -> dict[str, Any]:
    """The table as data, for comparison.json."""
    rows = judge(suite, records)
    return {
        "conditions": published_title(suite),
        "notes": published_notes(rows),
        "rows": [
            {
                "name": row.saved.name,
                "number": row.saved.published.number if row.saved.published else None,
                "seeds": row.seeds,
                "figures": {part: asdict(figure) for part, figure in row.figures.items()},
                "minutes": row.minutes,
                "verdict": row.verdict,
                "skipped": row.saved.skipped,
            }
            for row in rows
        ],
    }
