"""What trackers are given of a run and of a suite: their records and tables, flat, as every library takes them."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.results.record import Record
from harness.results.store import Store

SETTINGS = {
    "run_id", "identity", "strategy", "strategy_source", "readout", "attention", "phases", "seed", "precision",
    "choices", "model", "data", "engine", "config", "environment",
}  # fmt: skip
MEASURED = {"calibration", "forgetting", "throughput", "step_milliseconds", "seconds", "energy", "communication"}
INTERVAL = ("low", "high")
ARTIFACTS = ("table.md", "summary.csv", "report.html")
# What not every tracker takes in a part of a name; `_x` begins what stands for it.
_ESCAPED = re.compile(r"[^\w. -]|^\.|_(?=x)")
_LONGEST = 120  # characters of a part: MLflow takes names of 250


@dataclass(frozen=True)
class LoggedRun:
    """A run that has ended, in whatever state.

    name: for people: its row and seed. settings: by the record's own dotted keys. figures: the final ones, such as
    `test/accuracy` with `test/accuracy_low` and `test/accuracy_high`, its 95% interval. curves: by step, from 1, such
    as `curve/loss`. started, ended: seconds since 1970.
    """

    name: str
    run_id: str
    status: str
    error: str | None
    settings: dict[str, str | float]
    figures: dict[str, float]
    curves: dict[int, dict[str, float]]
    started: float
    ended: float

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"

    @property
    def last_step(self) -> int:
        return max(self.curves, default=0)

    @classmethod
    def of(cls, name: str, record: Record, store: Store) -> LoggedRun:
        """Raises UserError where the losses beside the record can't be read."""
        ended = datetime.datetime.fromisoformat(record.finished_at).timestamp()
        return cls(
            name=name,
            run_id=record.run_id,
            status=record.status,
            error=record.error,
            settings=_flat(record.model_dump(mode="json", include=SETTINGS)),
            figures=_figures(record),
            curves=_curves(record, store),
            started=ended - record.seconds.total,
            ended=ended,
        )


@dataclass(frozen=True)
class LoggedSuite:
    """figures: of each row of its tables, over all seeds, such as `last_block/test/accuracy`. artifacts: files."""

    figures: dict[str, float] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, results: Path, run_ids: Iterable[str]) -> LoggedSuite:
        """From the files of the tables and the report. run_ids: of the suite, of whose rows there are figures."""
        tables = json.loads((results / "comparison.json").read_text(encoding="utf-8"))
        rows = [row for table in tables for row in table.get("rows", []) if set(run_ids) & set(row.get("run_ids", []))]
        figures = {}
        for row in rows:
            named = {name: (score["mean"], score["interval"]) for name, score in row["test_metrics"].items()}
            named["accuracy"] = (row["values"]["test % [95%]"], row["test_interval"])
            for metric, (value, interval) in named.items():
                figures |= _with_interval(f"{_escaped(row['name'])}/test/{metric}", value, interval)
        return cls(figures, [path for name in ARTIFACTS if (path := results / name).exists()])


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str | float]:
    """Leaves by dotted key: numbers as they are, all else as text, without those that are None."""
    flat: dict[str, str | float] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            flat[prefix + key] = value
        elif value is not None:
            flat[prefix + key] = json.dumps(value)
    return flat


def _figures(record: Record) -> dict[str, float]:
    """Every number that was measured."""
    figures: dict[str, float] = {}
    parts = record.metrics.model_dump(exclude_none=True) if record.metrics else {}
    for part, metrics in parts.items():
        low, high = metrics.pop("interval")
        figures |= _numbers(part, metrics) | {f"{part}/accuracy_low": low, f"{part}/accuracy_high": high}
    for part, values in record.model_dump(include=MEASURED, exclude_none=True).items():
        figures |= _numbers(part, values)
    if record.memory:
        figures["memory/peak_bytes"] = record.memory.peak_bytes
        figures["memory/grown_bytes"] = record.memory.grown_bytes
    return figures


def _numbers(prefix: str, tree: dict[str, Any]) -> dict[str, float]:
    """The numbers of a tree, by the path of their keys: classes, which are such keys, have any characters."""
    numbers: dict[str, float] = {}
    for key, value in tree.items():
        name = f"{prefix}/{_escaped(key)}"
        if isinstance(value, dict):
            numbers |= _numbers(name, value)
        elif isinstance(value, int | float):
            numbers[name] = value
    return numbers


def _with_interval(name: str, value: float | None, interval: tuple[float, float] | None) -> dict[str, float]:
    if value is None:
        return {}
    ends = zip(INTERVAL, interval, strict=True) if interval else ()
    return {name: value} | {f"{name}_{end}": bound for end, bound in ends}


def _escaped(part: str) -> str:
    """A part of a figure's name in characters that every tracker takes: C+ is C_x2B_. Different parts stay different.

    Reversible, unless its end was cut off: then it has a hash.
    """
    escaped = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):X}_", part)
    if len(escaped) <= _LONGEST:
        return escaped
    return f"{escaped[:_LONGEST]}_{hashlib.sha256(part.encode()).hexdigest()[:10]}"


def _curves(record: Record, store: Store) -> dict[int, dict[str, float]]:
    """Loss and accuracy of each training step, and at the end of each epoch that was judged its validation scores."""
    frame = store.curve(record.run_id)
    if frame is None:
        return {}
    named = frame.rename(columns={"loss": "curve/loss", "accuracy": "curve/accuracy"})
    curves: dict[int, dict[str, float]] = named.set_index("step").to_dict(orient="index")  # pyright: ignore
    if record.epochs:
        steps_of_epoch = len(frame) // len(record.epochs.scores)
        for epoch, score in enumerate(record.epochs.scores, start=1):
            scores = {"curve/validation_loss": score.loss, f"curve/validation_{record.epochs.metric}": score.value}
            curves[epoch * steps_of_epoch] |= scores
    return curves
