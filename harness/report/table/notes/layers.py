"""Notes on strategies that were run at several layers."""

from __future__ import annotations

from harness.report.analysis.layers import LayerCurve, LayerPoint


def layer_notes(found: list[LayerCurve]) -> list[str]:
    return [_note(curve) for curve in found]


def _note(curve: LayerCurve) -> str:
    best, top = curve.best, curve.points[-1]
    layers = [point.layer for point in curve.points]
    beside = "" if best is top else f"; layer {top.layer} has {_shown(top)}"
    return (
        f"Layers: of {len(layers)} from {layers[0]} to {layers[-1]} {curve.name} is best at layer {best.layer} on the "
        f"validation texts, and has {_shown(best)} on test there{beside}."
    )


def _shown(point: LayerPoint) -> str:
    low, high = point.interval
    return f"{100 * point.test:.2f}% [{100 * low:.1f}, {100 * high:.1f}]"
