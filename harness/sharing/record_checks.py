"""Whether a record agrees with itself: its name, its figures, and what is possible."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from harness.data.model_files.hub import PREFIX
from harness.measure.memory import CPU_DEFINITION
from harness.planning.identity import identity_of, run_id_of
from harness.results.quality import Metrics
from harness.results.record import Record
from harness.statistics import wilson_interval

# A run that failed for other reasons says nothing of its strategy.
TAKEN = ("ok", "oom", "diverged")
_ROUNDING = 1e-6


def record_problems(record: Record, folder: str) -> Iterator[str]:
    """folder: the name of the run's folder."""
    if record.status not in TAKEN:
        yield f"status {record.status}: only runs that ended as {', '.join(TAKEN)} are shared; delete it, or run again"
    elif record.status != "ok" and not record.error:
        yield f"status {record.status} without a reason in `error`"
    if record.strategy_source.is_outside:
        yield f"{record.strategy_source.warning}: others can't repeat it; offer the strategy first"
    yield from _identity_problems(record, folder)
    numbers = _numbers(record.model_dump())
    yield from (f"{key} is {value}, not a number" for key, value in numbers if not math.isfinite(value))
    yield from _time_problems(record)
    yield from _memory_problems(record)
    yield from _parameter_problems(record)
    if record.status == "ok":
        yield from _split_problems(record)


def _identity_problems(record: Record, folder: str) -> Iterator[str]:
    if record.run_id != folder:
        yield f"its folder is named {folder!r}, not after the run"
    expected = run_id_of(record.strategy, record.config, record.seed, record.identity)
    if not re.fullmatch(re.escape(expected) + r"(-\d+)?", record.run_id):  # a run that was repeated has a number, too
        yield f"run_id {record.run_id!r} does not follow from strategy, model, data, seed and identity ({expected!r})"
    seed, model = record.config.get("seed", record.seed), record.config.get("model", {}).get("name", "")
    if seed != record.seed:
        yield f"seed {record.seed} is not that of the configuration ({seed})"
    if record.data is None or model.startswith(
        PREFIX
    ):  # its identity has the hash of files that a record does not name
        return
    hashes = record.data.sha256, record.model.weights_sha256, record.strategy_source.sha256, None
    if record.identity != identity_of(record.config, *hashes, record.environment.get("code_sha256")):
        yield "identity does not follow from the configuration and the hashes of data, weights, strategy and code"


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The floats of a record, by dotted key."""
    if isinstance(tree, float):
        yield key, tree
    elif isinstance(tree, (dict, list, tuple)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _numbers(value, f"{key}.{name}".lstrip("."))


def _time_problems(record: Record) -> Iterator[str]:
    seconds = record.seconds
    phases = [part for part in (seconds.prepare, seconds.features, seconds.train, seconds.evaluate) if part is not None]
    if any(part < 0 for part in phases) or (record.status == "ok" and seconds.total <= 0):
        yield f"seconds.total is {seconds.total}, of phases of {phases}: expected positive times"
    if not math.isclose(sum(phases), seconds.total, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
        yield f"seconds.total is {seconds.total}, but the phases are {sum(phases)} together"
    for part in (record.throughput, record.step_milliseconds):
        for name, value in part.model_dump().items() if part else ():
            if value is not None and value <= 0:
                yield f"{name} is {value}: expected a positive number"


def _memory_problems(record: Record) -> Iterator[str]:
    memory = record.memory
    if memory is None:
        return
    peaks = [peak for rank in memory.by_rank for peak in rank.phases.values()]
    if not peaks or memory.peak_bytes != max(peaks):
        yield f"memory.peak_bytes is {memory.peak_bytes}, but the highest phase of all ranks {max(peaks, default=None)}"
    if any(rank.at_start < 0 or min(rank.phases.values(), default=1) <= 0 for rank in memory.by_rank):
        yield "memory of a phase is 0 or less"
    available = record.environment.get("ram_bytes")
    if memory.definition == CPU_DEFINITION and available and memory.peak_bytes > available:
        yield f"memory.peak_bytes is {memory.peak_bytes}, more than the machine has ({available})"


def _parameter_problems(record: Record) -> Iterator[str]:
    trained, all_parameters = record.model.trainable_parameters, record.model.parameters
    if trained is not None and (trained < 0 or (all_parameters is not None and trained > all_parameters)):
        yield f"{trained} trained parameters of {all_parameters}"
    if record.status == "ok" and not record.strategy_source.is_baseline and not trained:
        yield "model.trainable_parameters: expected those that the strategy trains"


def _split_problems(record: Record) -> Iterator[str]:
    """Of the metrics of each part of the data; `prediction_problems` recomputes those on test."""
    if record.metrics is None or record.data is None:
        yield "status ok without metrics and facts about the data"
        return
    sizes: dict[str, int] = {str(name): size for name, size in record.data.sizes.items()}
    sizes["test_clean"] = sizes["test"] - record.data.test_in_train
    for name, metrics in (("train", record.metrics.train), ("validation", record.metrics.validation)):
        yield from _metrics_problems(name, metrics, sizes[name])
    yield from _metrics_problems("test", record.metrics.test, sizes["test"])
    if record.metrics.test_clean:
        yield from _metrics_problems("test_clean", record.metrics.test_clean, sizes["test_clean"])


def _metrics_problems(name: str, metrics: Metrics, size: int) -> Iterator[str]:
    if metrics.total != size:
        yield f"metrics.{name}.total is {metrics.total}, but the part has {size} texts"
    if not 0 <= metrics.correct <= metrics.total or not metrics.total:
        yield f"metrics.{name}: {metrics.correct} correct of {metrics.total}"
        return
    if not math.isclose(metrics.accuracy, metrics.correct / metrics.total, rel_tol=_ROUNDING):
        yield f"metrics.{name}.accuracy is {metrics.accuracy}, but {metrics.correct} of {metrics.total} are correct"
    expected = wilson_interval(metrics.correct, metrics.total)
    if not all(math.isclose(*pair, abs_tol=_ROUNDING) for pair in zip(metrics.interval, expected, strict=True)):
        yield f"metrics.{name}.interval is not Wilson's of {metrics.correct} correct of {metrics.total}"
    if metrics.loss < 0:
        yield f"metrics.{name}.loss is {metrics.loss}, below 0"
