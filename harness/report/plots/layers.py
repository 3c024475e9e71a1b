"""Accuracy over the layer that is read."""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from harness.report.analysis.layers import LayerCurve
from harness.report.plots.drawing import INK, Look, Plot, key, new_figure


def layer_plot(found: list[LayerCurve]) -> Plot:
    title = found[0].metric.title
    figure = new_figure(3.1 + 0.17 * -(-len(found) // 3))
    axes = figure.subplots()
    handles = []
    for number, curve in enumerate(found):
        look, points = Look.of(number, is_hollow=False), curve.points
        # Beside each other, so that no interval hides another.
        places = {point.layer: point.layer + 0.12 * (number - (len(found) - 1) / 2) for point in points}
        for point in points:
            axes.plot([places[point.layer]] * 2, [100 * end for end in point.interval], color=look.colour, linewidth=1)
        handles += axes.plot(
            [places[point.layer] for point in points], [100 * point.test for point in points], **look.marks
        )
        best = curve.best
        axes.plot(places[best.layer], 100 * best.test, "o", color=INK, markerfacecolor="none", markersize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer that is read", ylabel=f"test {title}, %")
    key(figure, handles, [curve.name for curve in found])
    best_layers = "; ".join(f"{curve.name} {curve.best.layer}" for curve in found)
    return Plot(
        "layer",
        f"{title[0].upper()}{title[1:]} over the layer",
        f"Test {title} over the layer that is read, of {len(found)} strategies. Best layers: {best_layers}.",
        "Bars: 95% intervals. Ringed: each strategy's best layer by the validation texts.",
        figure,
    )
