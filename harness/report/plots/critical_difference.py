"""Mean ranks over data sets, and what is not shown to differ: a critical-difference diagram (Demsar, JMLR, 2006)."""

from __future__ import annotations

from harness.report.across.data_sets import DataSets, Ranks
from harness.report.plots.drawing import INK, Plot, new_figure, short
from harness.statistics import LEVEL


def critical_difference_plot(found: DataSets, ranks: Ranks) -> Plot:
    from scikit_posthocs import critical_difference_diagram  # imports statsmodels and seaborn, which takes 2 s

    labels = {name: short(str(name)) for name in ranks.mean.index}
    figure = new_figure(1.2 + 0.16 * len(labels))
    axes = figure.subplots()
    critical_difference_diagram(
        ranks.mean.rename(labels),
        ranks.pairs.rename(index=labels, columns=labels),
        alpha=LEVEL if ranks.differ else 0.0,
        ax=axes,
        color_palette=[INK] * len(labels),
        crossbar_props={"color": INK},
    )
    listed = "; ".join(f"{name} {rank:.2f}" for name, rank in ranks.mean.sort_values().items())
    return Plot(
        "ranks",
        f"Mean ranks over {len(found.names)} data sets",
        f"Mean rank of each row over {len(found.names)} data sets, 1 is best: {listed}.",
        "1 is best. A bar joins rows that are not shown to differ in rank (Siegel and Castellan, Holm, 5%).",
        figure,
    )
