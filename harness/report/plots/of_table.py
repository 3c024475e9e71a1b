"""The plots of a comparison table."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.analysis.comparison import reference_of
from harness.report.analysis.grouping import Group
from harness.report.plots.comparison import comparison_plots, looks_of
from harness.report.plots.drawing import Plot
from harness.report.plots.history import history, history_plot
from harness.report.plots.layers import layer_plot
from harness.report.plots.learning_curves import learning_curve_plots
from harness.report.plots.sweep import sweep_plot
from harness.report.table.comparison_table import ComparisonTable
from harness.results.record import Record
from harness.results.store import Store


def plots_of(
    table: ComparisonTable, group: Group, records: list[Record], store: Store, reference: str | None
) -> Iterator[Plot]:
    """Drawn one after the other, within `style()`. group: of the table. records: of all revisions, for its history."""
    entries, looks = table.entries, looks_of(table.entries)
    yield from comparison_plots(entries, looks)
    yield from learning_curve_plots(entries, looks, reference_of(entries, reference).name, store)
    if table.swept:
        yield sweep_plot(table.swept)
    if table.layers:
        yield layer_plot(table.layers)
    revisions, rows = history(group, records)
    if rows:
        yield history_plot(revisions, rows)
