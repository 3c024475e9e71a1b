"""Plots of a comparison table: accuracy, cost, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean, median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.analysis.baselines import LENGTH_RULE
from harness.report.analysis.entry import Entry, are_costs_comparable
from harness.report.plots.confusion import confusion, confusions
from harness.report.plots.drawing import (
    BLUE,
    GREEN,
    HATCHES,
    INK,
    ORANGE,
    PAPER,
    PINK,
    RED,
    SKY,
    Look,
    Plot,
    key,
    log_where_wide,
    new_figure,
    plain_numbers,
    short,
)
from harness.results.record import Memory

ROW_HEIGHT = 0.27  # inches


def comparison_plots(entries: list[Entry], looks: dict[str, Look]) -> Iterator[Plot]:
    """Those for which there are measurements, in the order of the page."""
    ok = [entry for entry in entries if entry.ok]
    if not ok:
        return
    yield accuracy(ok, looks)
    if any(entry.ok[0].memory for entry in ok):
        yield memory([entry for entry in ok if entry.ok[0].memory])
    comparable = are_costs_comparable(ok)
    if comparable and len(ok) > 1:
        yield against(ok, looks, "time", "seconds from the data to the final evaluation (median over seeds)", _seconds)
    if comparable and sum(_megabytes(entry) is not None for entry in ok) > 1:
        unit = "highest peak of memory above the start, MB (median over seeds)"
        yield against(ok, looks, "memory", unit, _megabytes)
    if any(_rates(entry) for entry in ok):
        yield throughput([entry for entry in ok if _rates(entry)])
    counts = {entry.name: counted for entry in ok if (counted := confusion(entry)) is not None}
    if counts:
        yield confusions(counts)


def looks_of(entries: list[Entry]) -> dict[str, Look]:
    return {entry.name: Look.of(number, entry.is_baseline) for number, entry in enumerate(entries)}


def _seconds(entry: Entry) -> float | None:
    return median(record.seconds.total for record in entry.timed)


def _megabytes(entry: Entry) -> float | None:
    grown = [record.memory.grown_bytes / 1e6 for record in entry.ok if record.memory]
    return median(grown) if grown else None


def _rates(entry: Entry) -> tuple[float, float] | None:
    """Real tokens a second, and those with padding: medians over seeds."""
    measured = [record.throughput for record in entry.ok if record.throughput]
    real = [rate for one in measured if (rate := one.real_tokens_per_second)]
    padded = [rate for one in measured if (rate := one.padded_tokens_per_second)]
    return (median(real), median(padded)) if real and padded else None


def _percent(entry: Entry) -> float:
    return 100 * entry.ok_accuracy


def _rows(entries: list[Entry], extra: float = 0.9) -> tuple[Figure, Axes, list[float]]:
    """A figure with a line for each entry from top to bottom, a gap before baselines; the positions of the lines."""
    gap = 0.6 if 0 < sum(entry.is_baseline for entry in entries) < len(entries) else 0.0
    places = [number + gap * entry.is_baseline for number, entry in enumerate(entries)]
    figure = new_figure(ROW_HEIGHT * (places[-1] + 1) + extra)
    axes = figure.subplots()
    axes.set_yticks(places, [short(entry.name) for entry in entries])
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    plain_numbers(axes.xaxis)
    return figure, axes, places


def _beside(axes: Axes, places: list[float], texts: list[str]) -> None:
    for place, text in zip(places, texts, strict=True):
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)


def accuracy(entries: list[Entry], looks: dict[str, Look]) -> Plot:
    figure, axes, places = _rows(entries)
    for entry, place in zip(entries, places, strict=True):
        look = looks[entry.name]
        if entry.interval:
            low, high = entry.interval
            axes.hlines(place, 100 * low, 100 * high, color=look.colour, linewidth=2)
        axes.plot(_percent(entry), place, **look.marks, linestyle="none")
        if entry.is_baseline and entry.name in ("majority", LENGTH_RULE):
            axes.axvline(_percent(entry), color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    _beside(axes, places, [f"{_percent(entry):.2f}" for entry in entries])
    axes.set_xlabel("test accuracy, % (bar: 95% interval)")
    return Plot(
        "accuracy",
        "Test accuracy",
        f"Test accuracy in percent of {len(entries)} rows, each with its 95% interval. {_extremes(entries)}",
        "A point is the mean over seeds, its bar the 95% interval of the table. Hollow: baselines; dotted lines: "
        "majority and length_rule, where they ran.",
        figure,
    )


def _extremes(entries: list[Entry]) -> str:
    best, worst = max(entries, key=_percent), min(entries, key=_percent)
    return f"Highest: {best.name} with {_percent(best):.2f}; lowest: {worst.name} with {_percent(worst):.2f}."


def against(
    entries: list[Entry], looks: dict[str, Look], what: str, unit: str, cost: Callable[[Entry], float | None]
) -> Plot:
    """Accuracy against a cost, with the Pareto front."""
    costs = {entry.name: value for entry in entries if (value := cost(entry)) is not None}
    shown = [entry for entry in entries if entry.name in costs]
    figure = new_figure(3.1 + 0.17 * -(-len(shown) // 3))
    axes = figure.subplots()
    front = pareto_front([(costs[entry.name], entry.ok_accuracy) for entry in shown])
    corners = sorted((costs[shown[index].name], _percent(shown[index])) for index in front)
    axes.plot(*zip(*corners, strict=True), drawstyle="steps-post", color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.plot(*zip(*corners, strict=True), "o", color=INK, markerfacecolor="none", markersize=12, markeredgewidth=0.8)
    handles = [
        axes.plot(costs[entry.name], _percent(entry), **looks[entry.name].marks, linestyle="none")[0] for entry in shown
    ]
    log_where_wide(axes, list(costs.values()))
    axes.margins(y=0.08)
    axes.set(xlabel=unit, ylabel="test accuracy, %")
    key(figure, handles, [entry.name for entry in shown])
    names = ", ".join(shown[index].name for index in front)
    stored = " Times marked * in the table leave out what another run had stored." if what == "time" else ""
    return Plot(
        f"accuracy_{what}",
        f"Accuracy against {what}",
        f"Test accuracy against {what} of {len(shown)} rows. On the Pareto front: {names}.",
        f"Up and left is better. Ringed, on the dashed line: the Pareto front, rows that none equals or beats in both. "
        f"Hollow: baselines.{stored}",
        figure,
    )


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that no other equals or beats in both and beats in one, by rising cost."""

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)

    return sorted((n for n, point in enumerate(points) if not is_beaten(point)), key=lambda n: points[n])


def throughput(entries: list[Entry]) -> Plot:
    figure, axes, places = _rows(entries, extra=1.1)
    rates = [rates for entry in entries if (rates := _rates(entry))]
    real, padding = [of_real for of_real, _ in rates], [padded - of_real for of_real, padded in rates]
    parts = {"real tokens": (real, BLUE, ""), "padding": (padding, ORANGE, "////")}
    _stack(figure, axes, places, parts)
    _beside(axes, places, [f"{one:,.0f}" for one in real])
    axes.set_xlabel("tokens a second (right: real ones)")
    return Plot(
        "throughput",
        "Throughput",
        "Tokens a second in training, real tokens and padding apart: "
        + "; ".join(f"{entry.name} {one:,.0f} real" for entry, one in zip(entries, real, strict=True)),
        "All tokens that steady-state steps work through: real ones, and padding that is computed beside them. "
        "Medians over seeds.",
        figure,
    )


def _stack(
    figure: Figure, axes: Axes, places: list[float], parts: dict[str, tuple[list[float], str, str]]
) -> list[BarContainer]:
    """Horizontal bars of parts (values, colour, hatch), with a key above."""
    left, bars = np.zeros(len(places)), []
    for values, colour, hatch in parts.values():
        bars.append(axes.barh(places, values, 0.66, left, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0.5))
        left += values
    key(figure, bars, list(parts), where="upper")
    return bars


def memory(entries: list[Entry]) -> Plot:
    figure, axes, places = _rows(entries, extra=1.1)
    added = [_added_by_phase(entry) for entry in entries]
    phases = list(dict.fromkeys(name for one in added for name in one))
    colours = (SKY, GREEN, BLUE, RED, PINK)
    parts = {
        name: ([one.get(name, 0) / 1e6 for one in added], colours[n % len(colours)], HATCHES[n % len(HATCHES)])
        for n, name in enumerate(phases)
    }
    _stack(figure, axes, places, parts)
    totals = [sum(one.values()) / 1e6 for one in added]
    _beside(axes, places, [f"{total:,.0f}" for total in totals])
    axes.set_xlabel("MB above the start (right: the peak)")
    return Plot(
        "memory",
        "Memory by phase",
        "Peak memory above the start of the run by phase, in MB: "
        + "; ".join(f"{entry.name} {total:,.0f}" for entry, total in zip(entries, totals, strict=True)),
        "A part is what a phase added to the highest peak before it, so a bar ends at the run's peak. Of several seeds "
        "the one with the median peak, of its ranks the one with the highest.",
        figure,
    )


def _added_by_phase(entry: Entry) -> dict[str, float]:
    """Bytes that each phase added, mean over the middle runs by peak: one, or two whose mean is the median."""
    runs = sorted((record.memory for record in entry.ok if record.memory), key=lambda memory: memory.grown_bytes)
    middle = [_added(memory) for memory in runs[(len(runs) - 1) // 2 : len(runs) // 2 + 1]]
    return {name: fmean(added[name] for added in middle) for name in middle[0]}


def _added(memory: Memory) -> dict[str, int]:
    """Bytes that each phase added to the peak before it, on the rank with the highest peak."""
    rank = max(memory.by_rank, key=lambda rank: max(rank.phases.values()) - rank.at_start)
    added, highest = {}, rank.at_start
    for name, peak in rank.phases.items():
        added[name] = max(peak - highest, 0)
        highest = max(peak, highest)
    return added
