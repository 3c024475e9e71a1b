"""Throughput over the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.analysis.scaling import ScalingRow
from harness.report.plots.drawing import INK, Look, Plot, key, new_figure, plain_numbers


def scaling_plot(title: str, rows: Sequence[ScalingRow]) -> Plot:
    figure = new_figure(3.2)
    axes = figure.subplots()
    handles, engines = [], list(dict.fromkeys(row.engine for row in rows))
    for number, engine in enumerate(engines):
        of_engine = [row for row in rows if row.engine == engine]
        ranks, rates = [row.ranks for row in of_engine], [row.examples_per_second for row in of_engine]
        handles += axes.plot(ranks, rates, **Look.of(number, False).marks)
    ranks = sorted({row.ranks for row in rows})
    single = [row.examples_per_second for row in rows if row.ranks == 1]
    if single:
        handles += axes.plot(ranks, [max(single) * n for n in ranks], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        engines.append("one rank, times the ranks")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, map(str, ranks))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    plain_numbers(axes.yaxis)
    axes.set(xlabel="ranks", ylabel="examples a second")
    key(figure, handles, engines)
    rates_of_all = "; ".join(f"{row.engine} on {row.ranks}: {row.examples_per_second:,.0f}" for row in rows)
    return Plot(
        "ranks",
        "Throughput over ranks",
        f"{title}: examples a second by number of ranks. {rates_of_all}.",
        "Medians over seeds. Dotted: as if each rank were as fast as one alone, which none is where ranks share cores.",
        figure,
    )
