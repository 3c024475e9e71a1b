"""Accuracy by revision of the code."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from harness.report.analysis.grouping import Group
from harness.report.plots.drawing import BLUE, PANEL_HEIGHT, Plot, name_axes, panels, plain_numbers, short
from harness.results.record import Record


@dataclass(frozen=True)
class History:
    """Test accuracy of a row in %: mean, lowest and highest seed, at each revision (its index) where it ran."""

    name: str
    revisions: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def revision_of(record: Record) -> str:
    """Git's; the hash of the code where it was modified since, or there is no git."""
    git = record.environment.get("git")
    return git["revision"] if git and not git["modified"] else record.environment["code_sha256"]


def history(group: Group, records: list[Record]) -> tuple[list[str], list[History]]:
    """The revisions at which the configurations of a table ran, in order of first finish, and each row's history.

    records: all, the oldest first. Rows that ran at a single revision have no history.
    """
    names = {_all_but_seed(record): group.name_of(record) for record in group.records}
    runs: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        configuration = _all_but_seed(record)
        if record.status == "ok" and configuration in names:
            of_name = runs.setdefault(names[configuration], {})
            of_name.setdefault(revision_of(record), {})[record.seed] = 100 * record.ok_metrics.test.accuracy
    runs = {name: runs[name] for name in dict.fromkeys(names.values()) if len(runs.get(name, ())) > 1}
    seen = {revision for of_name in runs.values() for revision in of_name}
    revisions = [one for one in dict.fromkeys(map(revision_of, records)) if one in seen]
    return revisions, [_history(name, of_name, revisions) for name, of_name in runs.items()]


def _history(name: str, of_name: dict[str, dict[int, float]], revisions: list[str]) -> History:
    indices = [index for index, revision in enumerate(revisions) if revision in of_name]
    seeds = [list(of_name[revisions[index]].values()) for index in indices]
    return History(name, indices, [float(np.mean(one)) for one in seeds], [*map(min, seeds)], [*map(max, seeds)])


def _all_but_seed(record: Record) -> str:
    rest = {key: value for key, value in record.config.items() if key != "seed"}
    return json.dumps([rest, record.data.sha256 if record.data else None, record.sweep_around], sort_keys=True)


def history_plot(revisions: list[str], rows: list[History]) -> Plot:
    figure, axes_of = panels(len(rows), PANEL_HEIGHT, columns=4, sharex=True)
    for axes, one in zip(axes_of, rows, strict=True):
        axes.fill_between(one.revisions, one.low, one.high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(one.revisions, one.mean, "o-", color=BLUE, markersize=4)
        axes.set_title(short(one.name), loc="left")
        _name_revisions(axes, revisions)
        axes.set_ylim(min(*one.low, one.mean[0] - 1), max(*one.high, one.mean[0] + 1))
        axes.margins(y=0.08)
        plain_numbers(axes.yaxis)
    name_axes(figure, axes_of, "revision", "test accuracy, %")
    ends = "; ".join(f"{one.name} {one.mean[0]:.2f} to {one.mean[-1]:.2f}" for one in rows)
    return Plot(
        "history",
        "Accuracy by revision of the code",
        f"Test accuracy in percent by revision, a panel for each of {len(rows)} rows. First to last: {ends}.",
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
