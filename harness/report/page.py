"""The report: tables, plots and one page with all of it, which needs nothing else to be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.files import write_atomically
from harness.report.analysis import published
from harness.report.analysis.comparison import Group, groups, reference_of
from harness.report.analysis.misclassified import Mistakes, mistakes
from harness.report.analysis.scaling import NOTE, TITLES, scaling
from harness.report.analysis.sweep import curves, sweep_rows
from harness.report.files import write_tables
from harness.report.plots.drawing import Plot, draw, short, style
from harness.report.plots.rows import looks_of, row_plots
from harness.report.plots.trends import course_plots, history, history_plot, scaling_plot, sweep_plot
from harness.report.table.sheet import Sheet, sheets
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, suites_in

ACCURACY = "test % [95%]"
HIGHLIGHTS = {
    ACCURACY: "Highest test accuracy",
    "examples/s": "Fastest training, examples a second",
    "memory": "Least memory",
    "trained": "Fewest trained parameters",
}


@dataclass(frozen=True)
class Cell:
    """value: by which a column is sorted; None: by its text."""

    text: str
    value: float | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    name: str
    cells: list[Cell]
    failure: str | None = None
    is_baseline: bool = False


@dataclass(frozen=True)
class Grid:
    """A table as the page shows it; the first `left` columns hold text."""

    caption: str
    titles: list[str]
    lines: list[Line]
    left: int = 1


@dataclass(frozen=True)
class Picture:
    plot: Plot
    svg: Markup


@dataclass(frozen=True)
class Section:
    """highlights: what wins a column, its name and its value."""

    heading: str
    grids: list[Grid]
    notes: list[str]
    pictures: list[Picture]
    highlights: list[tuple[str, str, str]] = ()
    mistakes: list[Mistakes] = ()


def write_report(
    store: Store, records: list[Record], left_out: list[str], cache: Path, reference: str | None = None
) -> list[Path]:
    """The tables, RESULTS/report.html and RESULTS/plots; records: all of the store, but for those left out."""
    tables, suites = write_tables(store, reference), suites_in(store.results)
    newest = newest_of_each(records)
    studio = Studio(store.results / "plots")
    with style():
        sections = [
            *(
                _compared(group, number, records, store, reference, cache, studio)
                for number, group in enumerate(groups(newest, suites), start=1)
            ),
            *_scaled(newest, studio),
            *(_published(suite, records) for suite in suites if suite.is_published),
        ]
    studio.remove_others()
    page = store.results / "report.html"
    write_atomically(page, _html(sections, records, left_out))
    return [*tables, page, *studio.written]


class Studio:
    """Where plots become files and pictures, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def pictures(self, prefix: str, plots: Iterable[Plot]) -> list[Picture]:
        """Narrow ones first."""
        found = [self._picture(plot.named(f"{prefix}_{plot.name}")) for plot in plots]
        return sorted(found, key=lambda picture: picture.plot.is_wide)

    def _picture(self, plot: Plot) -> Picture:
        drawn = draw(plot)
        for path, content in ((f"{plot.name}.svg", drawn.svg), (f"{plot.name}.png", drawn.png)):
            write_atomically(self.folder / path, content)
            self.written.append(self.folder / path)
        return Picture(plot, drawn.inline)

    def remove_others(self) -> None:
        """Plots of an earlier report, of which this one has no table any more."""
        for path in set(self.folder.glob("table*_*.*")) | set(self.folder.glob("scaling*_*.*")):
            if path not in self.written:
                path.unlink()


def _compared(
    group: Group,
    number: int,
    records: list[Record],
    store: Store,
    reference: str | None,
    cache: Path,
    studio: Studio,
) -> Section:
    (sheet,) = sheets([group], store, reference)
    entries, swept, looks = sheet.entries, curves(group.records), looks_of(sheet.entries)
    grids = [_grid(sheet)]
    if swept:
        grids.append(_plain_grid("Validation accuracy over the learning rate", *sweep_rows(swept)))

    def plots() -> Iterable[Plot]:
        yield from row_plots(entries, looks, store)
        yield from course_plots(entries, looks, reference_of(entries, reference).name, store)
        if swept:
            yield sweep_plot(swept)
        revisions, past = history(group, records)
        if past:
            yield history_plot(revisions, past)

    return Section(
        heading=sheet.heading,
        grids=grids,
        notes=sheet.notes,
        pictures=studio.pictures(f"table{number}", plots()),
        highlights=_highlights(sheet),
        mistakes=mistakes(entries, cache),
    )


def _grid(sheet: Sheet) -> Grid:
    # What is the same for all rows, such as a reference's, is no number to sort by, and a verdict is none.
    values_of = [{column.value(entry) for entry in sheet.entries} - {None, 0} for column in sheet.columns]
    numeric = [bool(values) and not any(isinstance(value, str) for value in values) for values in values_of]
    lines = []
    for entry, row in zip(sheet.entries, sheet.rows, strict=True):
        values = [column.value(entry) if sorts else None for column, sorts in zip(sheet.columns, numeric, strict=True)]
        cells = [Cell(*cell) for cell in zip(row.cells, values, row.best, strict=True)]
        lines.append(Line(row.name, cells, row.failure, entry.is_baseline))
    titles = [sheet.first_title, *(column.title for column in sheet.columns)]
    return Grid(f"Comparison: {sheet.heading}", titles, lines)


def _plain_grid(caption: str, titles: Iterable[str], cells: Iterable[list[str]], left: int = 1) -> Grid:
    lines = [
        Line(first, [Cell(text, _number(text) if place >= left else None) for place, text in enumerate(rest, start=1)])
        for first, *rest in cells
    ]
    return Grid(caption, list(titles), lines, left)


def _number(text: str) -> float | None:
    """Of a cell that is one, with a unit or an interval behind it: "1,200", "[97.33]", "9.5 s"."""
    found = re.fullmatch(r"\[?([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)[\]%]?(?: .*)?", text)
    return float(found[1].replace(",", "")) if found else None


def _highlights(sheet: Sheet) -> list[tuple[str, str, str]]:
    found = []
    for title, told in HIGHLIGHTS.items():
        number = next(n for n, column in enumerate(sheet.columns) if column.title == title)
        best = [row for row in sheet.rows if row.best[number]]
        if title == ACCURACY:  # a baseline that is better must not be hidden
            accuracies = [entry.accuracy for entry in sheet.entries]
            highest = max(filter(None, accuracies), default=None)
            best = [row for row, one in zip(sheet.rows, accuracies, strict=True) if one and one == highest]
        if best:
            more = f" and {len(best) - 1} more" if len(best) > 1 else ""
            found.append((told, short(best[0].name) + more, best[0].cells[number]))
    return found


def _scaled(records: list[Record], studio: Studio) -> Iterable[Section]:
    for number, (title, found) in enumerate(scaling(records), start=1):
        pictures = studio.pictures(f"scaling{number}", [scaling_plot(title, found)])
        yield Section(title, [_plain_grid(title, TITLES, [row.cells() for row in found])], [NOTE], pictures)


def _published(suite: SavedSuite, records: list[Record]) -> Section:
    lines = published.judged(suite, records)
    grid = _plain_grid(published.title(suite), published.TITLES, map(published.cells, lines), left=2)
    return Section(published.title(suite), [grid], published.notes(lines), [])


def _html(sections: list[Section], records: list[Record], left_out: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ended = sum(record.status == "ok" for record in records)
    return environment.get_template("page.html.j2").render(
        sections=sections, runs=len(records), ended=ended, newest=records[-1].finished_at[:10], left_out=left_out
    )
