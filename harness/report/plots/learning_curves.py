"""Loss and accuracy over the training steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from harness.report.analysis.entry import Entry
from harness.report.plots.drawing import INK, PANEL_HEIGHT, Look, Plot, name_axes, panels, plain_numbers, short
from harness.results.store import Store

MOST_POINTS = 120
SMOOTHED_PART = 40  # running means over one in so many of the steps


@dataclass(frozen=True)
class LearningCurve:
    """Mean, lowest and highest over an entry's seeds by step, each smoothed over `window` steps; arrays [points]."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int


def learning_curves(entries: list[Entry], store: Store) -> dict[str, dict[str, LearningCurve]]:
    """`loss` and, where the runs recorded it, `accuracy`; each by name of the entry."""
    found: dict[str, dict[str, LearningCurve]] = {"loss": {}, "accuracy": {}}
    for entry in entries:
        frames = [frame for record in entry.ok if (frame := store.curve(record.run_id)) is not None and len(frame)]
        for what, of_entry in found.items():
            seeds = [frame.set_index("step")[what] for frame in frames if what in frame]
            if seeds:
                of_entry[entry.name] = _smoothed(seeds)
    return found


def _smoothed(seeds: list[pd.Series]) -> LearningCurve:
    table = pd.concat(seeds, axis=1, join="inner")
    window = max(1, len(table) // SMOOTHED_PART)
    smooth = table.rolling(window, center=True, min_periods=1).mean()
    shown = np.unique(np.linspace(0, len(table) - 1, min(MOST_POINTS, len(table))).astype(int))
    smooth = smooth.iloc[shown]
    return LearningCurve(
        steps=smooth.index.to_numpy(),
        mean=smooth.mean(axis=1).to_numpy(),
        low=smooth.min(axis=1).to_numpy(),
        high=smooth.max(axis=1).to_numpy(),
        window=window,
    )


def learning_curve_plots(entries: list[Entry], looks: dict[str, Look], reference: str, store: Store) -> Iterator[Plot]:
    found = learning_curves(entries, store)
    if found["loss"]:
        yield _plot("loss", "Loss by training step", "loss of the batch, nats", found["loss"], looks, reference)
    if found["accuracy"]:
        percent = {
            name: LearningCurve(one.steps, 100 * one.mean, 100 * one.low, 100 * one.high, one.window)
            for name, one in found["accuracy"].items()
        }
        title = "Training accuracy by step"
        yield _plot("training_accuracy", title, "accuracy on the batch, %", percent, looks, reference)


def _plot(
    name: str, title: str, unit: str, found: dict[str, LearningCurve], looks: dict[str, Look], reference: str
) -> Plot:
    figure, axes_of = panels(len(found), PANEL_HEIGHT, columns=4, sharex=True, sharey=True)
    base = found.get(reference)
    for axes, (entry, curve) in zip(axes_of, found.items(), strict=True):
        if base is not None and entry != reference:
            axes.plot(base.steps, base.mean, color=INK, alpha=0.55, linewidth=1, linestyle=(0, (4, 2)))
        axes.fill_between(curve.steps, curve.low, curve.high, color=looks[entry].colour, alpha=0.25, linewidth=0)
        axes.plot(curve.steps, curve.mean, color=looks[entry].colour)
        axes.set_title(short(entry), loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
    name_axes(figure, axes_of, "training step", unit)
    widest = max(curve.window for curve in found.values())
    smoothed = f"running means over {widest} steps" if widest > 1 else "not smoothed"
    ends = "; ".join(f"{entry} {curve.mean[-1]:.3g}" for entry, curve in found.items())
    dashed = f" Dashed: {reference}." if base is not None and len(found) > 1 else ""
    return Plot(
        name,
        title,
        f"{title}, a panel for each of {len(found)} rows. At the end: {ends}.",
        f"Line: mean over seeds; band: lowest to highest seed; {smoothed}. Of the "
        f"texts of each batch, before the step's update.{dashed}",
        figure,
    )
