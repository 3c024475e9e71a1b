"""Accuracy over the learning rate."""

from __future__ import annotations

from harness.metrics import METRICS
from harness.report.analysis.sweep import SweepCurve
from harness.report.plots.drawing import INK, Look, Plot, key, log_where_wide, new_figure


def sweep_plot(found: list[SweepCurve]) -> Plot:
    title = METRICS[found[0].metric].title
    figure = new_figure(3.1 + 0.17 * -(-len(found) // 3))
    axes = figure.subplots()
    handles = []
    for number, curve in enumerate(found):
        look = Look.of(number, is_hollow=False)
        values = [100 * point.validation_metric for point in curve.points]
        handles += axes.plot([point.rate for point in curve.points], values, **look.marks)
        best = curve.best
        axes.plot(best.rate, 100 * best.validation_metric, "o", color=INK, markerfacecolor="none", markersize=12)
    axes.axvline(found[0].common, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    log_where_wide(axes, [point.rate for curve in found for point in curve.points])
    axes.set(xlabel="learning rate", ylabel=f"validation {title}, %")
    key(figure, handles, [curve.name for curve in found])
    best_rates = "; ".join(f"{curve.name} {curve.best.rate:g}" for curve in found)
    return Plot(
        "learning_rate",
        f"{title[0].upper()}{title[1:]} over the learning rate",
        f"Validation {title} over the learning rate of {len(found)} strategies. Best rates: {best_rates}.",
        f"Means over the seeds of the sweep ({len(found[0].seeds)}). Ringed: each strategy's best; dotted: the common "
        "rate.",
        figure,
    )
