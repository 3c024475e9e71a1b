"""Whether predictions.csv is whole, and gives the metrics of its record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.results.record import Record
from harness.sharing.contribution import PREDICTIONS
from harness.sharing.record_checks import LATER_METRICS
from harness.training.evaluation import measure

# Of metrics recomputed from probabilities, which the record's own logits give to the last bit.
_TOLERANCE = 1e-6


def prediction_problems(record: Record, path: Path) -> Iterator[str]:
    """record: with status ok. path: of its predictions."""
    frame = read_predictions(path)
    if isinstance(frame, str):
        yield frame
        return
    classes = record.ok_data.classes
    columns = ["index", "label", "predicted", *(f"probability_{name}" for name in classes)]
    if list(frame.columns) != columns:
        yield f"{PREDICTIONS} has the columns {', '.join(frame.columns)}: expected {', '.join(columns)}"
        return
    problems = list(_frame_problems(frame, record))
    yield from problems
    if not problems:
        yield from _metrics_problems(frame, record)


def read_predictions(path: Path) -> pd.DataFrame | str:
    """All columns; the problem where it can't be read."""
    if not path.is_file():
        return f"no {PREDICTIONS}: add the one that the run wrote"
    texts = {"label": str, "predicted": str}
    try:
        return pd.read_csv(path, dtype=texts, keep_default_na=False, float_precision="round_trip")
    except (ValueError, UnicodeDecodeError) as error:
        return f"{PREDICTIONS} can't be read ({error})"


def _probabilities(frame: pd.DataFrame) -> np.ndarray:
    """[examples, classes]"""
    return frame.iloc[:, 3:].to_numpy(dtype=float)


def _frame_problems(frame: pd.DataFrame, record: Record) -> Iterator[str]:
    classes, size = record.ok_data.classes, record.ok_data.sizes["test"]
    if len(frame) != size:
        yield f"{PREDICTIONS} has {len(frame)} rows, but there are {size} test texts"
    if not frame["index"].is_unique:
        yield f"{PREDICTIONS} has an index twice ({frame['index'][frame['index'].duplicated()].iloc[0]})"
    if unknown := sorted({*frame["label"], *frame["predicted"]} - set(classes)):
        yield f"{PREDICTIONS} has the class {unknown[0]!r}: the record has {', '.join(classes)}"
        return
    try:
        found = _probabilities(frame)
    except ValueError as error:
        yield f"{PREDICTIONS} has a probability that is no number ({error})"
        return
    if not ((found >= 0) & (found <= 1)).all() or not np.allclose(found.sum(axis=1), 1, atol=_TOLERANCE):
        yield f"{PREDICTIONS} has probabilities that do not add up to 1"
        return
    differing = (np.array(classes)[found.argmax(axis=1)] != frame["predicted"].to_numpy()).sum()
    if differing:
        yield f"{PREDICTIONS} predicts {differing} times another class than the most probable one"


def _metrics_problems(frame: pd.DataFrame, record: Record) -> Iterator[str]:
    classes = record.ok_data.classes
    labels = frame["label"].map({name: number for number, name in enumerate(classes)}).to_numpy()
    with np.errstate(divide="ignore"):  # the logarithm of 0
        found = measure(np.log(_probabilities(frame)), labels, classes).model_dump()
    for name, value in record.ok_metrics.test.model_dump().items():
        if not _agree(value, found[name]) and not (value is None and name in LATER_METRICS):
            yield f"metrics.test.{name} is {value}, but {PREDICTIONS} gives {found[name]}"


def _agree(value: Any, other: Any) -> bool:
    if value is None:
        return other is None
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(_agree(value[key], other[key]) for key in value)
    if isinstance(value, tuple):
        return all(map(_agree, value, other))
    if other is None or math.isinf(other):  # a probability that is too small for a float64
        return other is not None
    return math.isclose(value, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
