"""Plots of a table's rows: what each reaches, what it costs, and where it errs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean, median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from harness.errors import UserError
from harness.report.analysis.baselines import LENGTH_RULE
from harness.report.analysis.comparison import Entry
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
    name_axes,
    new_figure,
    panels,
    plain_numbers,
    short,
)
from harness.results.record import Memory
from harness.results.store import Store

ROW_HEIGHT = 0.27  # inches
MOST_NAMED_CLASSES = 8


def row_plots(entries: list[Entry], looks: dict[str, Look], store: Store) -> Iterator[Plot]:
    """Those for which something was measured, in the order of the page."""
    ended = [entry for entry in entries if entry.ok]
    if not ended:
        return
    yield accuracy(ended, looks)
    if any(entry.ok[0].memory for entry in ended):
        yield memory([entry for entry in ended if entry.ok[0].memory])
    if len(ended) > 1:
        yield against(
            ended, looks, "time", "seconds from the data to the final evaluation (median over seeds)", _seconds
        )
    if sum(_megabytes(entry) is not None for entry in ended) > 1:
        unit = "highest peak of memory above the start, MB (median over seeds)"
        yield against(ended, looks, "memory", unit, _megabytes)
    if any(_rates(entry) for entry in ended):
        yield throughput([entry for entry in ended if _rates(entry)])
    counts = {entry.name: counted for entry in ended if (counted := confusion(entry, store)) is not None}
    if counts:
        yield confusions(counts)


def looks_of(entries: list[Entry]) -> dict[str, Look]:
    return {entry.name: Look.of(number, entry.is_baseline) for number, entry in enumerate(entries)}


def _seconds(entry: Entry) -> float | None:
    return median(record.seconds.total for record in entry.ok)


def _megabytes(entry: Entry) -> float | None:
    grown = [record.memory.grown_bytes / 1e6 for record in entry.ok if record.memory]
    return median(grown) if grown else None


def _rates(entry: Entry) -> tuple[float, float] | None:
    """Real tokens a second, and those with padding: medians over seeds."""
    told = [record.throughput for record in entry.ok if record.throughput and record.throughput.real_tokens_per_second]
    if not told:
        return None
    return median(one.real_tokens_per_second for one in told), median(one.padded_tokens_per_second for one in told)


def _percent(entry: Entry) -> float:
    return 100 * entry.accuracy


def _rows(entries: list[Entry], extra: float = 0.9) -> tuple[Figure, Axes, list[float]]:
    """A figure with a line for each entry from top to bottom, baselines set apart; the places of the lines."""
    apart = 0.6 if 0 < sum(entry.is_baseline for entry in entries) < len(entries) else 0.0
    places = [number + apart * entry.is_baseline for number, entry in enumerate(entries)]
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
            axes.hlines(place, *(100 * end for end in entry.interval), color=look.colour, linewidth=2)
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
    """Accuracy over a cost, with the front of those that nothing beats in both."""
    costs = {entry.name: value for entry in entries if (value := cost(entry)) is not None}
    shown = [entry for entry in entries if entry.name in costs]
    figure = new_figure(3.1 + 0.17 * -(-len(shown) // 3))
    axes = figure.subplots()
    front = pareto_front([(costs[entry.name], entry.accuracy) for entry in shown])
    corners = sorted((costs[shown[number].name], _percent(shown[number])) for number in front)
    axes.plot(*zip(*corners, strict=True), drawstyle="steps-post", color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.plot(*zip(*corners, strict=True), "o", color=INK, markerfacecolor="none", markersize=12, markeredgewidth=0.8)
    handles = [
        axes.plot(costs[entry.name], _percent(entry), **looks[entry.name].marks, linestyle="none")[0] for entry in shown
    ]
    log_where_wide(axes, list(costs.values()))
    axes.margins(y=0.08)
    axes.set(xlabel=unit, ylabel="test accuracy, %")
    key(figure, handles, [entry.name for entry in shown])
    names = ", ".join(shown[number].name for number in front)
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
    """Numbers of the points (cost, gain) that no other equals or beats in both and beats in one, by rising cost."""

    def is_beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)

    return sorted((n for n, point in enumerate(points) if not is_beaten(point)), key=lambda number: points[number])


def throughput(entries: list[Entry]) -> Plot:
    figure, axes, places = _rows(entries, extra=1.1)
    rates = [_rates(entry) for entry in entries]
    real, padding = [one for one, _ in rates], [all_ - one for one, all_ in rates]
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
    """Bytes that each phase added to the highest peak before it, on the rank with the highest of all."""
    rank = max(memory.by_rank, key=lambda rank: max(rank.phases.values()) - rank.at_start)
    added, highest = {}, rank.at_start
    for name, peak in rank.phases.items():
        added[name] = max(peak - highest, 0)
        highest = max(peak, highest)
    return added


def confusion(entry: Entry, store: Store) -> tuple[list[str], np.ndarray] | None:
    """Classes, and how many test messages of each (rows) were taken for each (columns), summed over seeds."""
    frames = [frame for record in entry.ok if (frame := store.predictions(record.run_id)) is not None]
    if not frames or not entry.ok[0].data:
        return None
    classes = entry.ok[0].data.classes
    numbers = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for frame in frames:
        if unknown := {*frame["label"], *frame["predicted"]} - set(classes):
            raise UserError(
                f"predictions of {entry.name!r} can't be read as predictions (class {min(unknown)!r} is not in the "
                "record): move the folder away."
            )
        np.add.at(counts, (frame["label"].map(numbers).to_numpy(), frame["predicted"].map(numbers).to_numpy()), 1)
    return classes, counts


def confusions(counts: dict[str, tuple[list[str], np.ndarray]]) -> Plot:
    most = max(len(classes) for classes, _ in counts.values())
    figure, found = panels(len(counts), 1.55 + 0.12 * min(most, 20), columns=5)
    for axes, (name, (classes, matrix)) in zip(found, counts.items(), strict=True):
        _matrix(axes, name, classes, matrix)
    name_axes(figure, found, "predicted class", "class of the label")
    wrong = "; ".join(
        f"{name} {matrix.sum() - matrix.trace():,} of {matrix.sum():,}" for name, (_, matrix) in counts.items()
    )
    return Plot(
        "confusion",
        "Confusion matrices",
        f"For each row how many test messages of a class were taken for which; wrong in all: {wrong}.",
        "Test messages summed over seeds. Blue, on the diagonal: right; red: wrong. The deeper, the larger the share "
        "of the label's messages.",
        figure,
    )


def _matrix(axes: Axes, name: str, classes: list[str], matrix: np.ndarray) -> None:
    size, of_label = len(classes), np.maximum(matrix.sum(axis=1), 1)
    for row, column in np.argwhere(matrix):
        share = matrix[row, column] / of_label[row]
        colour = BLUE if row == column else RED
        # Never so deep that the number on it, in black or white, can't be read.
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.05 + 0.4 * share, linewidth=0))
    if size <= MOST_NAMED_CLASSES:
        for (row, column), count in np.ndenumerate(matrix):
            axes.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", fontsize=9 if size < 4 else 7)
    named = size <= MOST_NAMED_CLASSES
    ticks, names = ([n + 0.5 for n in range(size)], [short(one, 9) for one in classes]) if named else ([], [])
    axes.set_xticks(ticks, names, rotation=0 if size < 4 else 45, fontsize=8, rotation_mode="anchor")
    if size >= 4:
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set(xlim=(0, size), ylim=(size, 0), title=short(name, 20), aspect="equal")
    axes.grid(False)
    axes.tick_params(length=0)
