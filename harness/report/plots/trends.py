"""Plots over training steps, learning rates, ranks and revisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.report.analysis.comparison import Entry
from harness.report.analysis.grouping import Group
from harness.report.analysis.scaling import ScalingRow
from harness.report.analysis.sweep import SweepCurve
from harness.report.plots.drawing import (
    BLUE,
    INK,
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
from harness.results.record import Record
from harness.results.store import Store

MOST_POINTS = 120
SMOOTHED_SHARE = 40  # of the steps, one in so many is averaged over
PANEL_HEIGHT = 1.75  # inches


# Over training steps


@dataclass(frozen=True)
class Course:
    """What an entry's seeds went through: mean, lowest and highest by step, each smoothed over `window` steps."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int


def courses(entries: list[Entry], store: Store) -> dict[str, dict[str, Course]]:
    """`loss` and, where it was kept, `accuracy`; of each by name of the entry."""
    found: dict[str, dict[str, Course]] = {"loss": {}, "accuracy": {}}
    for entry in entries:
        frames = [frame for record in entry.ok if (frame := store.curve(record.run_id)) is not None and len(frame)]
        for what, of_entry in found.items():
            told = [frame.set_index("step")[what] for frame in frames if what in frame]
            if told:
                of_entry[entry.name] = _course(told)
    return found


def _course(seeds: list[pd.Series]) -> Course:
    table = pd.concat(seeds, axis=1, join="inner")
    window = max(1, len(table) // SMOOTHED_SHARE)
    smooth = table.rolling(window, center=True, min_periods=1).mean()
    kept = np.unique(np.linspace(0, len(table) - 1, min(MOST_POINTS, len(table))).astype(int))
    smooth = smooth.iloc[kept]
    values = (smooth.mean(axis=1), smooth.min(axis=1), smooth.max(axis=1))
    return Course(smooth.index.to_numpy(), *(one.to_numpy() for one in values), window)


def course_plots(entries: list[Entry], looks: dict[str, Look], reference: str, store: Store) -> Iterator[Plot]:
    found = courses(entries, store)
    if found["loss"]:
        yield _learning("loss", "Loss by training step", "loss of the batch, nats", found["loss"], looks, reference)
    if found["accuracy"]:
        percent = {
            name: Course(one.steps, 100 * one.mean, 100 * one.low, 100 * one.high, one.window)
            for name, one in found["accuracy"].items()
        }
        title = "Training accuracy by step"
        yield _learning("training_accuracy", title, "accuracy on the batch, %", percent, looks, reference)


def _learning(
    name: str, title: str, unit: str, found: dict[str, Course], looks: dict[str, Look], reference: str
) -> Plot:
    figure, axes_of = panels(len(found), PANEL_HEIGHT, columns=4, sharex=True, sharey=True)
    base = found.get(reference)
    for axes, (entry, course) in zip(axes_of, found.items(), strict=True):
        if base is not None and entry != reference:
            axes.plot(base.steps, base.mean, color=INK, alpha=0.55, linewidth=1, linestyle=(0, (4, 2)))
        axes.fill_between(course.steps, course.low, course.high, color=looks[entry].colour, alpha=0.25, linewidth=0)
        axes.plot(course.steps, course.mean, color=looks[entry].colour)
        axes.set_title(short(entry), loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
    name_axes(figure, axes_of, "training step", unit)
    widest = max(course.window for course in found.values())
    smoothed = f"running means over {widest} steps" if widest > 1 else "not smoothed"
    ends = "; ".join(f"{entry} {course.mean[-1]:.3g}" for entry, course in found.items())
    dashed = f" Dashed: {reference}." if base is not None and len(found) > 1 else ""
    return Plot(
        name,
        title,
        f"{title}, a panel for each of {len(found)} rows. At the end: {ends}.",
        f"Line: mean over seeds; band: lowest to highest seed; {smoothed}. Of the "
        f"texts of each batch, before the step's update.{dashed}",
        figure,
    )


# Over learning rates


def sweep_plot(found: list[SweepCurve]) -> Plot:
    figure = new_figure(3.1 + 0.17 * -(-len(found) // 3))
    axes = figure.subplots()
    handles = []
    for number, curve in enumerate(found):
        look = Look.of(number, is_hollow=False)
        shares = [100 * point.validation_accuracy for point in curve.points]
        handles += axes.plot([point.rate for point in curve.points], shares, **look.marks)
        best = curve.best
        axes.plot(best.rate, 100 * best.validation_accuracy, "o", color=INK, markerfacecolor="none", markersize=12)
    axes.axvline(found[0].common, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    log_where_wide(axes, [point.rate for curve in found for point in curve.points])
    axes.set(xlabel="learning rate", ylabel="validation accuracy, %")
    key(figure, handles, [curve.name for curve in found])
    best = "; ".join(f"{curve.name} {curve.best.rate:g}" for curve in found)
    return Plot(
        "learning_rate",
        "Accuracy over the learning rate",
        f"Validation accuracy over the learning rate of {len(found)} strategies. Best rates: {best}.",
        f"Means over the seeds of the sweep ({len(found[0].seeds)}). Ringed: each strategy's best; dotted: the common "
        "rate.",
        figure,
    )


# Over ranks


def scaling_plot(title: str, rows: Sequence[ScalingRow]) -> Plot:
    figure = new_figure(3.2)
    axes = figure.subplots()
    handles, engines = [], list(dict.fromkeys(row.engine for row in rows))
    for number, engine in enumerate(engines):
        of_engine = [row for row in rows if row.engine == engine]
        ranks, rates = [row.ranks for row in of_engine], [row.examples_per_second for row in of_engine]
        handles += axes.plot(ranks, rates, **Look.of(number, False).marks)
    ranks = sorted({row.ranks for row in rows})
    alone = [row.examples_per_second for row in rows if row.ranks == 1]
    if alone:
        handles += axes.plot(ranks, [max(alone) * n for n in ranks], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        engines.append("one rank, times the ranks")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, map(str, ranks))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    plain_numbers(axes.yaxis)
    axes.set(xlabel="ranks", ylabel="examples a second")
    key(figure, handles, engines)
    told = "; ".join(f"{row.engine} on {row.ranks}: {row.examples_per_second:,.0f}" for row in rows)
    return Plot(
        "ranks",
        "Throughput over ranks",
        f"{title}: examples a second by number of ranks. {told}.",
        "Medians over seeds. Dotted: as if each rank were as fast as one alone, which none is where ranks share cores.",
        figure,
    )


# Over revisions


@dataclass(frozen=True)
class Past:
    """Test accuracy in % of a row: mean, lowest and highest seed, at each revision (its number) where it was run."""

    name: str
    revisions: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def revision_of(record: Record) -> str:
    """Of git; of the code itself where it was changed since, or there is no git."""
    git = record.environment.get("git")
    return git["revision"] if git and not git["modified"] else record.environment["code_sha256"]


def history(group: Group, records: list[Record]) -> tuple[list[str], list[Past]]:
    """The revisions at which the configurations of a table were run, in order of first finish, and what came of it.

    records: all, oldest first. Only configurations that were run at more than one revision.
    """
    names = {_all_but_seed(record): group.name_of(record) for record in group.records}
    runs: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        configuration = _all_but_seed(record)
        if record.status == "ok" and configuration in names:
            of_name = runs.setdefault(names[configuration], {})
            of_name.setdefault(revision_of(record), {})[record.seed] = 100 * record.metrics.test.accuracy
    runs = {name: runs[name] for name in dict.fromkeys(names.values()) if len(runs.get(name, ())) > 1}
    seen = {revision for of_name in runs.values() for revision in of_name}
    revisions = [one for one in dict.fromkeys(map(revision_of, records)) if one in seen]
    return revisions, [_past(name, of_name, revisions) for name, of_name in runs.items()]


def _past(name: str, of_name: dict[str, dict[int, float]], revisions: list[str]) -> Past:
    numbers = [number for number, revision in enumerate(revisions) if revision in of_name]
    seeds = [list(of_name[revisions[number]].values()) for number in numbers]
    return Past(name, numbers, [float(np.mean(one)) for one in seeds], [*map(min, seeds)], [*map(max, seeds)])


def _all_but_seed(record: Record) -> str:
    rest = {key: value for key, value in record.config.items() if key != "seed"}
    return json.dumps([rest, record.data.sha256 if record.data else None, record.sweep_around], sort_keys=True)


def history_plot(revisions: list[str], past: list[Past]) -> Plot:
    figure, axes_of = panels(len(past), PANEL_HEIGHT, columns=4, sharex=True)
    for axes, one in zip(axes_of, past, strict=True):
        axes.fill_between(one.revisions, one.low, one.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(one.revisions, one.mean, "o-", color=BLUE, markersize=4)
        axes.set_title(short(one.name), loc="left")
        _name_revisions(axes, revisions)
        axes.set_ylim(min(*one.low, one.mean[0] - 1), max(*one.high, one.mean[0] + 1))
        axes.margins(y=0.08)
        plain_numbers(axes.yaxis)
    name_axes(figure, axes_of, "revision", "test accuracy, %")
    ends = "; ".join(f"{one.name} {one.mean[0]:.2f} to {one.mean[-1]:.2f}" for one in past)
    return Plot(
        "history",
        "Accuracy by revision of the code",
        f"Test accuracy in percent by revision, a panel for each of {len(past)} rows. First to last: {ends}.",
        f"All records, not only the newest: {len(revisions)} revisions in order of their first run. Line: mean over "
        "seeds; band: lowest to highest seed. Each panel has a scale of its own.",
        figure,
    )


def _name_revisions(axes: Axes, revisions: list[str]) -> None:
    step = -(-len(revisions) // 6)
    places = list(range(0, len(revisions), step))
    axes.set_xticks(places, [short(revisions[place][:7], 7) for place in places], fontsize=8)
    for label in axes.get_xticklabels():
        label.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(revisions) - 0.5)
