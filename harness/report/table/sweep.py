"""The table of a sweep of learning rates, in the terminal and as Markdown, and the notes on it."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.metrics import METRICS
from harness.report.analysis.sweep import SweepCurve
from harness.report.table.markdown import markdown_table


def sweep_notes(found: list[SweepCurve]) -> list[str]:
    if not found:
        return []
    rates = sorted({rate for curve in found for rate in (*(point.rate for point in curve.points), *curve.failed)})
    seeds = len(found[0].seeds)
    by = METRICS[found[0].metric].title
    lines = [
        f"lr: each strategy's own best of {len(rates)} learning rates from {rates[0]:g} to {rates[-1]:g}, by {by} "
        f"on the validation texts ({seeds} seed{'s' if seeds > 1 else ''}), never by test; it cost "
        f"{sum(curve.seconds for curve in found):.0f} s beside the runs at the common rate."
    ]
    same = [curve.name for curve in found if curve.best.rate == curve.common]
    ends = [curve.name for curve in found if curve.is_best_at_end]
    for curve in found:
        if curve.failed:
            rates_failed = ", ".join(f"{rate:g}" for rate in curve.failed)
            lines.append(f"rates of {curve.name} at which a seed did not end well, left out: {rates_failed}.")
    if same:
        lines.append(f"the common rate is the best of the grid for {', '.join(same)}.")
    if ends:
        lines.append(f"the best rate is at an end of the grid for {', '.join(ends)}: a better one may lie beyond.")
    return lines


def sweep_rows(found: list[SweepCurve]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: the metric in % on the validation texts at each rate, in brackets at the best one."""
    rates = sorted({point.rate for curve in found for point in curve.points})
    cells = []
    for curve in found:
        by_rate = {point.rate: point for point in curve.points}
        shown = [f"{100 * by_rate[rate].validation_metric:.2f}" if rate in by_rate else "-" for rate in rates]
        marked = [f"[{cell}]" if rate == curve.best.rate else cell for rate, cell in zip(rates, shown, strict=True)]
        cells.append([curve.name, *marked])
    metric = found[0].metric if found else "accuracy"
    first = "val. % at lr" if metric == "accuracy" else f"val. {METRICS[metric].title} % at lr"
    return [first, *(f"{rate:g}" for rate in rates)], cells


def print_sweep(console: Console, found: list[SweepCurve]) -> None:
    titles, cells = sweep_rows(found)
    if cells:
        table = Table(box=box.SIMPLE_HEAD)
        for number, title in enumerate(titles):
            table.add_column(title, justify="right" if number else "left", no_wrap=True)
        for row in cells:
            table.add_row(*map(escape, row))
        console.print(table)


def sweep_markdown(found: list[SweepCurve]) -> list[str]:
    titles, cells = sweep_rows(found)
    return ["", *markdown_table(titles, cells)] if cells else []
