"""Strategies that were run at several layers: how good each layer is, and which is the best."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from harness.metrics import ACCURACY, Metric
from harness.report.analysis.entry import Entry


@dataclass(frozen=True)
class LayerPoint:
    """A row of the table. layer: from 0. validation, validation_loss: means over seeds, the first of the table's
    metric. test: the same on the test texts, with its 95% interval."""

    layer: int
    validation: float
    validation_loss: float
    test: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class LayerCurve:
    """A strategy's points, by rising layer: two at least. metric: the table's."""

    name: str
    points: list[LayerPoint]
    metric: Metric

    @property
    def best(self) -> LayerPoint:
        """By the validation texts, ties by their loss; test is not used."""
        return max(self.points, key=lambda point: (point.validation, -point.validation_loss))


def layer_curves(entries: list[Entry]) -> list[LayerCurve]:
    points: dict[str, list[LayerPoint]] = defaultdict(list)
    for entry in entries:
        if (found := _point(entry)) is not None:
            points[_without_layer(entry.name, found.layer)].append(found)
    metric = entries[0].metric if entries else ACCURACY
    return [
        LayerCurve(name, sorted(of_name, key=lambda point: point.layer), metric)
        for name, of_name in points.items()
        if len(of_name) > 1
    ]


def _point(entry: Entry) -> LayerPoint | None:
    """None for a row that names no layer by its number, or that has no ok run."""
    layer, score = entry.records[0].config.get("readout_layer"), entry.score
    if layer is None or layer < 0 or score is None:
        return None
    validation = fmean(record.on_validation(entry.metric.name) for record in entry.ok)
    loss = fmean(record.ok_metrics.validation.loss for record in entry.ok)
    return LayerPoint(layer, validation, loss, score.mean, score.interval)


def _without_layer(name: str, layer: int) -> str:
    """What rows of a strategy have in common: "probe (mean)" of "probe (mean, layer 2)"."""
    label = f"layer {layer}"
    return name.replace(f" ({label})", "").replace(f", {label}", "").replace(f"({label}, ", "(")
