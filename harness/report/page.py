"""The report: tables, plots and one self-contained page with all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from harness.files import write_atomically
from harness.metrics import ACCURACY, Metric
from harness.report.across.data_sets import data_sets, data_sets_matrix
from harness.report.across.label_curves import label_curves, label_matrix
from harness.report.across.matrix import Matrix
from harness.report.analysis.grouping import Group, groups
from harness.report.analysis.misclassified import Misclassified, misclassified
from harness.report.analysis.published import judge
from harness.report.analysis.scaling import scaling
from harness.report.analysis.simulation import simulations
from harness.report.files import write_tables
from harness.report.plots.critical_difference import critical_difference_plot
from harness.report.plots.drawing import Plot, draw, short, style
from harness.report.plots.label_curves import label_curve_plot
from harness.report.plots.of_table import plots_of
from harness.report.plots.scaling import scaling_plot, simulation_plot
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.report.table.published import PUBLISHED_TITLES, published_cells, published_notes, published_title
from harness.report.table.scaling import (
    SCALING_NOTE,
    SCALING_TITLES,
    SIMULATED_NOTE,
    SIMULATED_TITLES,
    scaling_cells,
    simulated_cells,
    worth_notes,
)
from harness.report.table.sweep import sweep_rows
from harness.report.templates import filled_in
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, suites_in

TEST_ACCURACY = "test % [95%]"
PLOT_KINDS = ("labels", "data", "table", "scaling")  # what their files' names begin with
HIGHLIGHTS = {
    TEST_ACCURACY: "Highest test accuracy",
    "examples/s": "Fastest training, examples a second",
    "memory": "Least memory",
    "trained": "Fewest trained parameters",
}


@dataclass(frozen=True)
class Cell:
    """value: sorts a column; None: its text does."""

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
    """A table of the page; the first `left` columns hold text."""

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
    """in_words: sentences on the comparison. highlights: what is best, the name of the row and its value."""

    heading: str
    grids: list[Grid]
    notes: list[str]
    pictures: list[Picture]
    in_words: list[str] = field(default_factory=list)
    highlights: list[tuple[str, str, str]] = field(default_factory=list)
    misclassified: list[Misclassified] = field(default_factory=list)


def write_report(
    store: Store,
    records: list[Record],
    left_out: list[str],
    cache: Path,
    reference: str | None = None,
    metric: Metric = ACCURACY,
    price: float | None = None,
) -> list[Path]:
    """The tables, RESULTS/report.html and RESULTS/plots.

    records: all that could be read; left_out: a message for each of the others. Returns the files written.
    """
    tables, suites = write_tables(store, reference, metric, price).paths, suites_in(store.results)
    newest = newest_of_each(records)
    plot_files = PlotFiles(store.results / "plots")
    with style():
        compared = [
            (group, comparison_tables([group], store, reference, metric=metric, price=price)[0])
            for group in groups(newest, suites)
        ]
        sections = [
            *_across([table for _, table in compared], plot_files),
            *(
                _compared(group, table, number, records, store, reference, cache, plot_files)
                for number, (group, table) in enumerate(compared, start=1)
            ),
            *_scaled(newest, plot_files),
            *(_published(suite, records) for suite in suites if suite.is_published),
        ]
    plot_files.remove_others()
    page = store.results / "report.html"
    write_atomically(page, _html(sections, records, left_out))
    return [*tables, page, *plot_files.written]


class PlotFiles:
    """Draws plots as files and as pictures of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def pictures(self, prefix: str, plots: Iterable[Plot]) -> list[Picture]:
        """The narrow ones first; prefix: of the files' names."""
        found = [self._picture(plot.named(f"{prefix}_{plot.name}")) for plot in plots]
        return sorted(found, key=lambda picture: picture.plot.is_wide)

    def _picture(self, plot: Plot) -> Picture:
        drawn = draw(plot)
        for path, content in ((f"{plot.name}.svg", drawn.svg), (f"{plot.name}.png", drawn.png)):
            write_atomically(self.folder / path, content)
            self.written.append(self.folder / path)
        return Picture(plot, drawn.inline)

    def remove_others(self) -> None:
        """Remove the plots of earlier reports that this one does not have."""
        for path in {found for kind in PLOT_KINDS for found in self.folder.glob(f"{kind}*_*.*")}:
            if path not in self.written:
                path.unlink()


def _across(tables: list[ComparisonTable], plot_files: PlotFiles) -> Iterable[Section]:
    for number, curves in enumerate(label_curves(tables), start=1):
        yield _overview(label_matrix(curves), plot_files.pictures(f"labels{number}", [label_curve_plot(curves)]))
    for number, found in enumerate(data_sets(tables), start=1):
        plots = [critical_difference_plot(found, found.ranks)] if found.ranks else []
        yield _overview(data_sets_matrix(found), plot_files.pictures(f"data{number}", plots))


def _overview(matrix: Matrix, pictures: list[Picture]) -> Section:
    grid = _plain_grid(matrix.heading, matrix.titles, matrix.cells)
    return Section(matrix.heading, [grid], matrix.notes, pictures, matrix.in_words)


def _compared(
    group: Group,
    table: ComparisonTable,
    number: int,
    records: list[Record],
    store: Store,
    reference: str | None,
    cache: Path,
    plot_files: PlotFiles,
) -> Section:
    entries, swept = table.entries, table.swept
    grids = [_grid(table)]
    if swept:
        grids.append(_plain_grid(f"Validation {table.metric.title} over the learning rate", *sweep_rows(swept)))

    return Section(
        heading=table.heading,
        grids=grids,
        notes=table.notes,
        pictures=plot_files.pictures(f"table{number}", plots_of(table, group, records, store, reference)),
        in_words=table.in_words,
        highlights=_highlights(table),
        misclassified=misclassified(entries, cache),
    )


def _grid(table: ComparisonTable) -> Grid:
    # Columns without numbers sort by their text: verdicts, and differences where only the reference has one.
    values_of = [{column.value(entry) for entry in table.entries} - {None, 0} for column in table.columns]
    numeric = [bool(values) and not any(isinstance(value, str) for value in values) for values in values_of]
    lines = []
    for entry, row in zip(table.entries, table.rows, strict=True):
        values = [column.number(entry) if sorts else None for column, sorts in zip(table.columns, numeric, strict=True)]
        cells = [Cell(*cell) for cell in zip(row.cells, values, row.best, strict=True)]
        lines.append(Line(row.name, cells, row.failure, entry.is_baseline))
    titles = [table.first_title, *(column.title for column in table.columns)]
    return Grid(f"Comparison: {table.heading}", titles, lines)


def _plain_grid(caption: str, titles: Iterable[str], cells: Iterable[list[str]], left: int = 1) -> Grid:
    lines = [
        Line(first, [Cell(text, _number(text) if place >= left else None) for place, text in enumerate(rest, start=1)])
        for first, *rest in cells
    ]
    return Grid(caption, list(titles), lines, left)


def _number(text: str) -> float | None:
    """The number at the start of a cell, before a unit or an interval: "1,200", "[97.33]", "9.5 s"."""
    found = re.fullmatch(r"\[?([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)[\]%]?(?: .*)?", text)
    return float(found[1].replace(",", "")) if found else None


def _highlights(table: ComparisonTable) -> list[tuple[str, str, str]]:
    found = []
    for title, label in HIGHLIGHTS.items():
        index = next(n for n, column in enumerate(table.columns) if column.title == title)
        best = [row for row in table.rows if row.best[index]]
        if title == TEST_ACCURACY:  # show a better baseline, which can't win
            accuracies = [entry.accuracy for entry in table.entries]
            highest = max(filter(None, accuracies), default=None)
            best = [row for row, one in zip(table.rows, accuracies, strict=True) if one and one == highest]
        if best:
            more = f" and {len(best) - 1} more" if len(best) > 1 else ""
            found.append((label, short(best[0].name) + more, best[0].cells[index]))
    return found


def _scaled(records: list[Record], plot_files: PlotFiles) -> Iterable[Section]:
    for number, (title, found) in enumerate(scaling(records), start=1):
        simulated, plots = simulations(found), [scaling_plot(title, found)]
        grids = [_plain_grid(title, SCALING_TITLES, map(scaling_cells, found))]
        if simulated:
            grids.append(_plain_grid(f"{title}, simulated", SIMULATED_TITLES, map(simulated_cells, simulated)))
            plots.append(simulation_plot(title, found, simulated))
        pictures = plot_files.pictures(f"scaling{number}", plots)
        notes = [*worth_notes(simulated), SCALING_NOTE, *([SIMULATED_NOTE] if simulated else [])]
        yield Section(title, grids, notes, pictures)


def _published(suite: SavedSuite, records: list[Record]) -> Section:
    rows, title = judge(suite, records), published_title(suite)
    grid = _plain_grid(title, PUBLISHED_TITLES, map(published_cells, rows), left=2)
    return Section(title, [grid], published_notes(rows), [])


def _html(sections: list[Section], records: list[Record], left_out: list[str]) -> str:
    ended = sum(record.status == "ok" for record in records)
    return filled_in(
        "page.html.j2",
        sections=sections,
        runs=len(records),
        ended=ended,
        newest=records[-1].finished_at[:10],
        left_out=left_out,
    )
