"""Whether a record agrees with itself: its name, its figures, and what is possible."""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

from harness.config.places import data_title, is_hub
from harness.data.splits import SPLITS
from harness.measure.clock import WARM_UP_STEPS
from harness.measure.memory import CPU_DEFINITION
from harness.planning.identity import identity_of, run_id_of
from harness.results.quality import Metrics
from harness.results.record import Record
from harness.statistics import wilson_interval

# A run that failed for other reasons says nothing of its strategy.
TAKEN = ("ok", "oom", "diverged")
# Records of older versions have null for them.
LATER_METRICS = ("macro_f1", "balanced_accuracy", "mcc")
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
    yield from _repeated_problems(record)
    yield from _number_problems(record)
    yield from _time_problems(record)
    yield from _memory_problems(record)
    yield from _parameter_problems(record)
    if record.status == "ok":
        yield from _split_problems(record)
        yield from _missing_problems(record)


def _identity_problems(record: Record, folder: str) -> Iterator[str]:
    if record.run_id != folder:
        yield f"its folder is named {folder!r}, not after the run"
    expected = run_id_of(record.strategy, record.config, record.seed, record.identity)
    if not re.fullmatch(re.escape(expected) + r"(-\d+)?", record.run_id):  # a run that was repeated has a number, too
        yield f"run_id {record.run_id!r} does not follow from strategy, model, data, seed and identity ({expected!r})"
    seed, model = record.config.get("seed", record.seed), record.config.get("model", {}).get("name", "")
    if seed != record.seed:
        yield f"seed {record.seed} is not that of the configuration ({seed})"
    if record.data is None or is_hub(model):  # its identity has the hash of files that a record does not name
        return
    hashes = record.data.sha256, record.model.weights_sha256, record.strategy_source.sha256, None
    if record.identity != identity_of(record.config, *hashes, record.environment.get("code_sha256")):
        yield "identity does not follow from the configuration and the hashes of data, weights, strategy and code"


def _repeated_problems(record: Record) -> Iterator[str]:
    """Fields that repeat the configuration, from which `experiment.records.record` takes them."""
    model, engine = record.config.get("model", {}), record.config.get("engine", {})
    repeated: dict[str, tuple[Any, Any]] = {
        "model.name": (record.model.name, model.get("name")),
        "model.weights": (record.model.weights, model.get("weights")),
        "engine.name": (record.engine.name, engine.get("name")),
        "engine.zero_stage": (record.engine.zero_stage, engine.get("zero_stage")),
        "precision": (record.precision, record.config.get("precision")),
    }
    if engine:
        repeated["engine.world_size"] = (record.engine.world_size, engine["processes"] * engine["nodes"])
    if record.data:
        repeated["data.name"] = (record.data.name, data_title(record.config["data"]["name"]))
    for key in ("readout", "attention"):
        value = getattr(record, key)
        if (configured := record.config.get(key)) is not None:
            repeated[key] = (value, configured)
        elif (value is None) != record.strategy_source.is_baseline:
            yield f"{key} is {value}: expected one of a strategy, none of a baseline"
    for key, (value, configured) in repeated.items():
        if value != configured:
            yield f"{key} is {value}, but that of the configuration is {configured}"


def _number_problems(record: Record) -> Iterator[str]:
    for key, value in _numbers(record.model_dump()):
        free = key.startswith(("config.", "environment."))
        if not math.isfinite(value):
            yield f"{key} is {value}, not a number"
        elif value < 0 and not (free or key.endswith(".mcc")):
            yield f"{key} is {value}, below 0"
    try:
        datetime.datetime.fromisoformat(record.finished_at)
    except ValueError:
        yield f"finished_at is {record.finished_at!r}, not a time"


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """By dotted key."""
    if isinstance(tree, int | float):
        yield key, tree
    elif isinstance(tree, (dict, list, tuple)):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _numbers(value, f"{key}.{name}".lstrip("."))


def _time_problems(record: Record) -> Iterator[str]:
    seconds = record.seconds
    phases = [part for part in (seconds.prepare, seconds.features, seconds.train, seconds.evaluate) if part is not None]
    if record.status == "ok" and seconds.total <= 0:
        yield f"seconds.total is {seconds.total}: expected a positive time"
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
    if any(min(rank.phases.values(), default=1) <= 0 for rank in memory.by_rank):
        yield "memory of a phase is 0 or less"
    available = record.environment["ram_bytes"]
    if memory.definition == CPU_DEFINITION and memory.peak_bytes > available:
        yield f"memory.peak_bytes is {memory.peak_bytes}, more than the machine has ({available})"


def _parameter_problems(record: Record) -> Iterator[str]:
    trained, all_parameters = record.model.trainable_parameters, record.model.parameters
    if trained is not None and (all_parameters is None or trained > all_parameters):
        yield f"{trained} trained parameters of {all_parameters}"
    if record.status == "ok" and not record.strategy_source.is_baseline and not trained:
        yield "model.trainable_parameters: expected those that the strategy trains"


def _split_problems(record: Record) -> Iterator[str]:
    """Of the metrics of each part of the data; `prediction_problems` recomputes those on test."""
    if record.metrics is None or record.data is None:
        yield "status ok without metrics and facts about the data"
        return
    sizes: dict[str, int] = {str(name): size for name, size in record.data.sizes.items()}
    if missing := [name for name in SPLITS if name not in sizes]:
        yield f"data.sizes lacks {', '.join(missing)}"
        return
    sizes["test_clean"] = sizes["test"] - record.data.test_in_train
    of_parts = {name: metrics for name, metrics in record.metrics if metrics}
    if "test_clean" not in of_parts and sizes["test_clean"]:
        yield f"metrics.test_clean is missing, but {sizes['test_clean']} test texts are not in the training set"
    for name, metrics in of_parts.items():
        yield from _metrics_problems(name, metrics, sizes.get(name))
        yield from _score_problems(name, metrics, record.data.classes)
    if len({tuple(getattr(metrics, one) is None for one in LATER_METRICS) for metrics in of_parts.values()}) > 1:
        yield f"some metrics lack {', '.join(LATER_METRICS)}, which others have"


def _missing_problems(record: Record) -> Iterator[str]:
    """What a run that ended well has measured; one that was trained with others as one model has no memory or speed
    of its own."""
    if record.joint_runs is None:
        if record.memory is None:
            yield "memory is missing"
        speed = [
            part.model_dump().values() if part else [None] for part in (record.throughput, record.step_milliseconds)
        ]
        if None in itertools.chain(*speed) and _steps(record) > WARM_UP_STEPS:
            yield f"throughput or step_milliseconds is missing, of {_steps(record)} training steps"
    elif record.joint_runs < 2:
        yield f"joint_runs is {record.joint_runs}: expected 2 or more"
    if record.forgetting and record.forgetting.rise is None and not record.forgetting.not_measured:
        yield "forgetting has neither losses nor the reason why it was not measured"
    if record.calibration and not record.calibration.temperature and not record.calibration.not_fitted:
        yield "calibration has neither a temperature nor the reason why none was fitted"


def _steps(record: Record) -> int:
    """At least; 0 where a run was resumed, after which the warm-up begins again."""
    if not record.takes_steps or record.resumed_from_step is not None or record.strategy_source.is_baseline:
        return 0
    training = record.config["training"]
    epochs = len(record.epochs.scores) if record.epochs else training["epochs"]
    return epochs * ((training.get("texts") or record.ok_data.sizes["train"]) // training["batch_size"])


def _score_problems(name: str, metrics: Metrics, classes: list[str]) -> Iterator[str]:
    if metrics.f1.keys() != {*classes}:
        yield f"metrics.{name}.f1 is of {', '.join(metrics.f1)}, but the classes are {', '.join(classes)}"
    scores = {f"f1.{label}": value for label, value in metrics.f1.items()}
    scores |= {key: getattr(metrics, key) for key in ("roc_auc", "calibration_error", *LATER_METRICS)}
    for key, value in scores.items():
        if value is not None and not (-1 if key == "mcc" else 0) - _ROUNDING <= value <= 1 + _ROUNDING:
            yield f"metrics.{name}.{key} is {value}: no such score is possible"


def _metrics_problems(name: str, metrics: Metrics, size: int | None) -> Iterator[str]:
    """size: of the part; None where it is not known."""
    if size is not None and metrics.total != size:
        yield f"metrics.{name}.total is {metrics.total}, but the part has {size} texts"
    if not 0 <= metrics.correct <= metrics.total or not metrics.total:
        yield f"metrics.{name}: {metrics.correct} correct of {metrics.total}"
        return
    if not math.isclose(metrics.accuracy, metrics.correct / metrics.total, rel_tol=_ROUNDING):
        yield f"metrics.{name}.accuracy is {metrics.accuracy}, but {metrics.correct} of {metrics.total} are correct"
    expected = wilson_interval(metrics.correct, metrics.total)
    if not all(math.isclose(*pair, abs_tol=_ROUNDING) for pair in zip(metrics.interval, expected, strict=True)):
        yield f"metrics.{name}.interval is not Wilson's of {metrics.correct} correct of {metrics.total}"
