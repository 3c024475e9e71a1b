"""A run from start to finish: data, cut, training, evaluation, record. The page to read first."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import strategies
from harness.config.schema import RunConfig
from harness.config.strategy import Strategy
from harness.data.batching import global_batches
from harness.data.dataset import Dataset, load_dataset
from harness.data.downloads import assets_folder
from harness.data.encoding import Examples, encode_split, longest_row
from harness.data.tokenizer import Tokenizer, load_tokenizer
from harness.distributed.process_group import World
from harness.errors import UserError
from harness.features.features import Features
from harness.features.store import FeatureReport, FeatureStore
from harness.kernels.occurring_tokens import leave_out_tokens
from harness.measure import clock as clocks
from harness.measure import environment
from harness.measure import memory as memories
from harness.measure.communication import measure_communication
from harness.model.assembly import Fill, assemble
from harness.model.models import model_of
from harness.model.split import Prefix, parameter_counts
from harness.planning.plan import PlannedRun
from harness.planning.strategy import effective_strategy
from harness.results import record as records
from harness.training.checkpoints import Checkpoints
from harness.training.engines.factory import open_engine
from harness.training.engines.protocol import Engine
from harness.training.evaluation import measure, predict, probabilities
from harness.training.loop import share_of, train

PHASES = ("prepare", "features", "train", "evaluate")


class Observer(Protocol):
    """Who watches a run; the report package has those that print."""

    def phase(self, name: str) -> None: ...

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None: ...

    def warning(self, text: str) -> None: ...


@dataclass
class Outcome:
    """What a run has measured so far: all of it where it ended well, the beginning where it failed.

    trained: its trained parameters, where they are to be kept. pad_to: the tokens that every row was padded to.
    """

    clock: clocks.Clock
    memory: memories.MemoryMeter
    facts: dict[str, Any] = field(default_factory=dict)
    curve: records.TrainingCurve = field(default_factory=records.TrainingCurve)
    test_shares: np.ndarray | None = None
    trained: dict[str, torch.Tensor] = field(default_factory=dict)
    test: Examples | None = None
    classes: list[str] = field(default_factory=list)
    pad_to: int | None = None

    @classmethod
    def begin(cls, world: World) -> Outcome:
        return cls(clocks.Clock(world.device), memories.MemoryMeter(world.device))


def run(
    planned: PlannedRun, cache: Path, checkpoints: Checkpoints, world: World, observer: Observer, outcome: Outcome
) -> None:
    """Do what `planned` says and leave what was measured in `outcome`, on every rank."""
    config, facts = planned.config, outcome.facts

    with phase("prepare", outcome, world, observer):
        model = model_of(config.model.name, cache)
        _check_code(planned)
        strategy = effective_strategy(config, model)
        dataset = load_dataset(config.data, cache)
        outcome.classes = dataset.source.classes
        tokenizer = tokenizer_of(config.model.name, cache)
        examples = encode_split(dataset.split, tokenizer, outcome.classes, strategy.input, model.context)
        facts["data"] = data_facts(dataset, examples)

        prefix, suffix, fill = assemble(config, strategy, model, planned.weights_path, len(outcome.classes))
        parameters, trainable = parameter_counts(prefix, suffix)
        facts["parameters"] = {"parameters": parameters, "trainable_parameters": trainable}
        # A third party's `build` may count on the whole embedding.
        left_out = None if config.plain or strategy.build else leave_out_tokens(suffix, examples)
        if not planned.keep:
            left_out = None  # nobody asks for the whole table: its memory is free
        engine = open_engine(config.engine, config.precision, world, fused=not config.plain)
        engine.prepare(suffix, config.optimizer)

    with phase("features", outcome, world, observer):
        features, report = _open_features(planned, strategy, prefix, fill, suffix.width, examples, cache, world)

    del fill  # with the stages of a hub's model that nobody has asked for

    with phase("train", outcome, world, observer):
        outcome.curve, facts["resumed_from_step"] = train(
            engine,
            features["train"],
            examples["train"],
            config.training,
            config.seed,
            world,
            outcome.clock,
            checkpoints,
            observer.progress,
        )
    for warning in checkpoints.warnings:
        observer.warning(warning)

    with phase("evaluate", outcome, world, observer):
        prefix.eval()
        batch_size = config.training.batch_size if config.plain else None
        logits = {name: predict(engine, part, world, batch_size) for name, part in features.items()}
    if planned.keep:
        outcome.trained = engine.values()
        if left_out:
            outcome.trained = left_out.whole(outcome.trained, config.optimizer, steps=len(outcome.curve))
    facts["communication"] = _communication(engine, features["train"], examples["train"], config, world)
    engine.close()
    assert not any(parameter.requires_grad for parameter in prefix.parameters()), "the prefix was unfrozen in mid-run"
    facts["prefix"] = _prefix_facts(prefix, report, world)

    facts["metrics"] = metrics_of(logits, examples, dataset) | {
        "train_batches": _metrics_of_batches(logits["train"], examples["train"], config, outcome.classes)
    }
    outcome.pad_to = int(examples["test"].lengths[0]) if strategy.input.pad_to else None
    outcome.test, outcome.test_shares = examples["test"], probabilities(logits["test"])


def make_record(
    planned: PlannedRun, world: World, outcome: Outcome, status: records.Status, error: str | None = None
) -> records.Record:
    """The record of a run in whatever state it ended. Where it ended well, every rank must call it."""
    used, facts, clock = planned.used, outcome.facts, outcome.clock
    model, engine = used.get("model", {}), used.get("engine", {})
    gather: Callable[[Any], list[Any]] = world.gather if status in ("ok", "diverged") else lambda value: [value]
    steps = gather(clock.steady_steps())
    return records.Record(
        run_id=planned.run_id,
        identity=planned.identity,
        status=status,
        strategy=planned.name,
        strategy_source=planned.source,
        readout=planned.readout,
        attention=planned.attention,
        seed=planned.config.seed,
        precision=used.get("precision"),
        choices=planned.choices,
        model={
            "name": model.get("name"),
            "weights": model.get("weights"),
            "weights_sha256": planned.weights_sha256,
            **facts.get("parameters", {}),
        },
        data=facts.get("data"),
        engine={"name": engine.get("name"), "zero_stage": engine.get("zero_stage"), "world_size": world.size},
        metrics=facts.get("metrics"),
        prefix=facts.get("prefix"),
        resumed_from_step=facts.get("resumed_from_step"),
        throughput=clocks.throughput(steps),
        step_milliseconds=clocks.step_milliseconds(steps[0]),
        sweep_around=planned.sweep_around,
        communication=facts.get("communication"),
        seconds=_seconds(clock.phases),
        memory=_memory(gather, world, outcome.memory),
        environment=environment.describe(world.device),
        config=used,
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        error=error,
    )


@contextmanager
def phase(name: str, outcome: Outcome, world: World, observer: Observer) -> Iterator[None]:
    observer.phase(name)
    world.note(name)
    with outcome.clock.phase(name), outcome.memory.phase(name):
        yield


@functools.lru_cache(maxsize=1)
def tokenizer_of(model: str, cache: Path) -> Tokenizer:
    return load_tokenizer(model, cache, assets_folder())


def _check_code(planned: PlannedRun) -> None:
    """Raises UserError where the strategy's file is not what the run is named and recorded by."""
    if strategies.load(planned.config.strategy).sha256 != planned.source.sha256:
        raise UserError(
            f"strategy {planned.config.strategy!r} has changed since this suite began: give the command again, which "
            "takes it for another strategy."
        )


def _open_features(
    planned: PlannedRun,
    strategy: Strategy,
    prefix: Prefix,
    fill: Fill | None,
    width: int,
    examples: dict[str, Examples],
    cache: Path,
    world: World,
) -> tuple[dict[str, Features], FeatureReport]:
    config, folder = planned.config, cache / "features"
    store = FeatureStore(
        # Machines that share a cache folder keep their features apart: each fills its own with its own ranks.
        folder=folder if world.local_size == world.size else folder / f"machine-{world.machine}",
        limit_bytes=int(config.features.limit_gigabytes * 1e9),
        world=world,
        precision=config.precision,
        recipe=None if strategy.build else _recipe(planned, strategy, prefix),
        code=strategies.load(config.strategy).sha256 if strategy.build else "",
        load=functools.partial(prefix.place, world.device, config.precision, fill=fill),
    )
    if config.plain:
        features = store.computed(prefix, examples, "the plain path recomputes it", longest_row(examples))
    else:
        features = store.open(prefix, examples, width)
    return features, store.report


def _recipe(planned: PlannedRun, strategy: Strategy, prefix: Prefix) -> str:
    """All that determines the tensors of a prefix, known before they are loaded."""
    model = planned.config.model
    origin = planned.weights_sha256, model.weights, model.init, model.init_seed
    return repr((model.name, origin, prefix.names, strategy.adapt, planned.config.precision))


def _communication(
    engine: Engine, features: Features, examples: Examples, config: RunConfig, world: World
) -> dict[str, Any] | None:
    """In steps after the last evaluation, which nothing measures or keeps."""
    training = config.training
    batches = global_batches(len(examples), training.batch_size, config.seed, 0, training.drop_last)
    if world.size == 1 or not batches:
        return None
    share = share_of(batches[0], features, examples, training, world)
    element_bytes = 8 if config.precision == "fp64" else 4
    return measure_communication(lambda: engine.step(share, len(batches[0])), element_bytes, world.device)


def _prefix_facts(prefix: Prefix, report: FeatureReport, world: World) -> dict[str, Any]:
    """Tokens of distinct texts and beginnings where features are stored; else all that went through the prefix."""
    return {
        "boundary": prefix.boundary,
        "computed_tokens": sum(world.gather(prefix.computed_tokens)) if report.told else report.computed_tokens,
        "reused_tokens": report.reused_tokens,
        "not_stored": report.told,
    }


def data_facts(dataset: Dataset, examples: dict[str, Examples]) -> dict[str, Any]:
    source = dataset.source
    return {
        "name": source.name,
        "sha256": source.sha256,
        "classes": source.classes,
        "sizes": {name: len(part) for name, part in examples.items()},
        "best_accuracy": source.best_accuracy,
        "test_in_train": sum(dataset.test_seen),
        "test_near_train": dataset.test_near_train,
        "cut_texts": sum(part.cut_texts for part in examples.values()),
    }


def metrics_of(logits: dict[str, np.ndarray], examples: dict[str, Examples], dataset: Dataset) -> dict[str, Any]:
    classes = dataset.source.classes
    metrics = {name: measure(logits[name], part.labels, classes) for name, part in examples.items()}
    clean, labels = ~np.array(dataset.test_seen), examples["test"].labels
    metrics["test_clean"] = measure(logits["test"][clean], labels[clean], classes) if clean.any() else None
    return metrics


def _metrics_of_batches(
    logits: np.ndarray, examples: Examples, config: RunConfig, classes: list[str]
) -> records.Metrics | None:
    training, last = config.training, max(config.training.epochs - 1, 0)
    batches = global_batches(len(examples), training.batch_size, config.seed, last, training.drop_last)
    trained = np.concatenate(batches) if batches else np.array([], dtype=int)
    return measure(logits[trained], examples.labels[trained], classes) if 0 < len(trained) < len(examples) else None


def _seconds(phases: dict[str, float]) -> dict[str, float | None]:
    return {name: phases.get(name) for name in PHASES} | {"total": sum(phases.values())}


def _memory(gather: Callable[[Any], list[Any]], world: World, meter: memories.MemoryMeter) -> dict[str, Any] | None:
    mine = {"rank": world.rank, "at_start": meter.at_start, "phases": meter.peaks, "reserved": meter.reserved}
    by_rank = gather(mine)
    if not meter.peaks:
        return None
    peak = max(bytes_ for rank in by_rank for bytes_ in rank["phases"].values())
    return {"peak_bytes": peak, "definition": memories.definition(world.device), "by_rank": by_rank}
