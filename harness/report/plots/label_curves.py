"""Accuracy over the number of training texts, with intervals."""

from __future__ import annotations

from matplotlib.ticker import NullLocator

from harness.report.across.label_curves import LabelCurves, curves_in_words
from harness.report.plots.drawing import Look, Plot, key, new_figure

SPREAD = 0.018  # between the bars of two rows, as a part of the size: else they would cover each other


def label_curve_plot(curves: LabelCurves) -> Plot:
    family, title = curves.family, curves.family.tables[-1].metric.title
    figure = new_figure(3.4 + 0.17 * -(-len(family.rows) // 3))
    axes = figure.subplots()
    handles = []
    for number, row in enumerate(family.rows.values()):
        of_size = [(size, cell.entry) for size, cell in zip(curves.sizes, row, strict=True) if cell]
        points = [(size, score) for size, entry in of_size if (score := entry.score)]
        look = Look.of(number, any(entry.is_baseline for _, entry in of_size))
        places = [size * (1 + SPREAD * (number - len(family.rows) / 2)) for size, _ in points]
        means = [100 * score.mean for _, score in points]
        low = [100 * (score.mean - score.interval[0]) for _, score in points]
        high = [100 * (score.interval[1] - score.mean) for _, score in points]
        axes.errorbar(places, means, yerr=[low, high], color=look.colour, linewidth=0, elinewidth=1.1)
        handles += axes.plot(places, means, **look.marks)
    axes.set_xscale("log")
    axes.set_xticks(curves.sizes, [f"{size:,}" for size in curves.sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="training texts", ylabel=f"{title} on test, %")
    key(figure, handles, list(family.rows))
    return Plot(
        "labels",
        "How many labels are enough",
        f"Test {title} over the number of training texts. {' '.join(curves_in_words(curves))}",
        "Means over seeds, each with its own draw of texts; bars: 95% intervals over seeds, draws and test texts.",
        figure,
    )
