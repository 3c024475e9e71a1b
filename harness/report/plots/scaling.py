"""Throughput over the number of ranks, and efficiency, measured and simulated."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.analysis.scaling import ScalingRow
from harness.report.analysis.simulation import MOST_RANKS, WORTH_EFFICIENCY, Simulation
from harness.report.plots.drawing import INK, Look, Plot, key, new_figure, panels, plain_numbers


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


def simulation_plot(title: str, rows: Sequence[ScalingRow], found: Sequence[Simulation]) -> Plot:
    """Efficiency; what was measured is marked beside the simulation in which the batch stays, as it did."""
    figure, (weak, strong) = panels(2, 2.6, columns=2, sharey=True)
    handles = []
    for number, one in enumerate(found):
        look = Look.of(number, is_hollow=False)
        for axes, points in ((weak, one.weak), (strong, one.strong)):
            ranks, values = [point.ranks for point in points], [100 * point.efficiency for point in points]
            axes.plot(ranks, values, color=look.colour, linestyle="--")
        measured = [row for row in rows if row.engine == one.engine and row.efficiency is not None]
        values = [100 * (row.efficiency or 0.0) for row in measured]
        handles += strong.plot([row.ranks for row in measured], values, linestyle="none", **look.marks)
    for axes, name in (
        (weak, "the batch grows with the ranks"),
        (strong, f"the batch stays at {found[0].costs.batch}"),
    ):
        axes.axhline(100 * WORTH_EFFICIENCY, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set(title=name, xlabel="ranks")
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.9, 1.1 * MOST_RANKS)
        ticks = [4**power for power in range(6)]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    weak.set_ylabel("efficiency, %")
    key(figure, handles, [one.engine for one in found])
    last = "; ".join(f"{one.engine} on {MOST_RANKS:,} ranks: {one.weak[-1].efficiency:.0%}" for one in found)
    return Plot(
        "simulated",
        "Efficiency over ranks, simulated",
        f"{title}: simulated efficiency by number of ranks. If the batch grows: {last}.",
        "Dashed: simulated; marked: measured. Below the dotted line a rank does less than half of what one alone does, "
        "and an example costs more than twice as much: its cost is the inverse of the efficiency.",
        figure,
    )
