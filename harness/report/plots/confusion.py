"""Confusion matrices."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from harness.report.analysis.entry import Entry
from harness.report.plots.drawing import BLUE, RED, Plot, name_axes, panels, short

MOST_NAMED_CLASSES = 8


def confusion(entry: Entry) -> tuple[list[str], np.ndarray] | None:
    """Classes, and the matrix of counts [label, predicted] of test messages, summed over seeds."""
    if not entry.predictions:
        return None
    classes = entry.ok[0].ok_data.classes
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for frame in entry.predictions.values():
        np.add.at(counts, (frame["label"].to_numpy(), frame["predicted"].to_numpy()), 1)
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
        fraction = matrix[row, column] / of_label[row]
        colour = BLUE if row == column else RED
        # Never so deep that the count on it, in black or white, is unreadable.
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.05 + 0.4 * fraction, linewidth=0))
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
