"""A run from start to finish: data, model, engine, features, training, evaluation, result. The page to read first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.config.schema import RunConfig
from harness.data.encoding import Examples, longest_row
from harness.experiment.context import Context
from harness.experiment.cut_model import CutModel, build_model
from harness.experiment.facts import (
    all_metrics,
    calibration,
    data_facts,
    measured_communication,
    prefix_facts,
    recipe_of,
    step_graphs,
)
from harness.experiment.forgetting import forgetting
from harness.experiment.texts import load_texts
from harness.features.features import Features
from harness.features.store import FeatureStore, OpenedFeatures, computed
from harness.features.token_budget import TokenBudget
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.results.outcome import Outcome, Predictions, Trained
from harness.results.record import EpochScore
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines.factory import open_engine
from harness.training.engines.protocol import Engine
from harness.training.evaluation import predict, probabilities
from harness.training.loop import train
from harness.training.schedule import untrained_factor
from harness.training.selection import Selection, score


def run(
    planned: PlannedRun, strategy: ResolvedStrategy, checkpoints: Checkpoints, context: Context, outcome: Outcome
) -> None:
    """Do what `planned` says and leave what it gives in `outcome`, on every rank."""
    config, world = planned.config, context.world

    with context.phase("prepare"):
        texts = load_texts(planned, strategy, context)
        dataset, examples = texts.dataset, texts.examples
        outcome.data = data_facts(planned, dataset, examples)
        model = build_model(planned, strategy, texts.every, len(dataset.source.classes), context)
        outcome.parameters, outcome.trainable_parameters = model.parameters
        engine = open_engine(config.engine, config.precision, world, fused=not config.plain)
        engine.prepare(model.suffix, config.optimizer)

    with context.phase("features"):
        stored, report = open_features(planned, strategy, model, texts.every, context)
        features = texts.features(stored)

    with context.phase("train"):
        hidden = model.suffix.width
        batches = TrainingBatches(
            features["train"], examples["train"], config.training, config.seed, world, hidden=hidden
        )
        selection = Selection(config.training, judge(config, model, engine, features, examples, context))
        outcome.curve, outcome.resumed_from_step = train(
            engine, batches, config.optimizer, selection, checkpoints, context.clock, context.observer.progress
        )
        outcome.epochs = selection.facts()
        epochs = outcome.epochs.kept if outcome.epochs else config.training.epochs
        outcome.graphs = step_graphs(engine, world.device)

    with context.phase("evaluate"):
        logits = evaluate(config, model, engine, features, context)

    if planned.save or config.forgetting:
        tensors = engine.values()
        if model.full_table:
            factor = untrained_factor(config.optimizer, epochs * batches.steps_of_epoch, batches.steps)
            tensors = model.full_table.complete(tensors, factor)
        pad_to = int(examples["test"].lengths[0]) if strategy.pad_to else None
        outcome.trained = Trained(tensors, dataset.source.classes, pad_to)
    outcome.communication = measured_communication(engine, batches, config.precision)
    engine.close()
    if config.forgetting and outcome.trained:
        outcome.forgetting = forgetting(planned, strategy, outcome.trained.tensors, context)
    outcome.prefix = prefix_facts(model.prefix, report, world)
    outcome.metrics = all_metrics(logits, examples, dataset, batches, epochs)
    outcome.calibration = calibration(logits, examples)
    test = examples["test"]
    outcome.test = Predictions(test.index, test.labels, probabilities(logits["test"]), dataset.source.classes)


def judge(
    config: RunConfig,
    model: CutModel,
    engine: Engine,
    features: Mapping[str, Features],
    examples: dict[str, Examples],
    context: Context,
) -> Callable[[], EpochScore]:
    """What scores the engine's parameters on the validation texts, between two epochs."""

    def validate() -> EpochScore:
        logits = evaluate(config, model, engine, {"validation": features["validation"]}, context)
        model.prefix.train()
        assert config.training.validation_metric is not None, "a plan resolves it"
        return score(logits["validation"], examples["validation"].labels, config.training.validation_metric)

    return validate


def evaluate(
    config: RunConfig, model: CutModel, engine: Engine, features: Mapping[str, Features], context: Context
) -> dict[str, np.ndarray]:
    """Logits [examples, classes] of each part. The prefix is left in evaluation mode."""
    model.prefix.eval()
    batch_size = config.training.batch_size if config.plain else None
    budget = TokenBudget.of(context.world, model.suffix.width, config.precision, context.observer.warning)
    return {name: predict(engine, part, context.world, batch_size, budget) for name, part in features.items()}


def open_features(
    planned: PlannedRun, strategy: ResolvedStrategy, model: CutModel, examples: dict[str, Examples], context: Context
) -> OpenedFeatures:
    config, world, shared = planned.config, context.world, context.workspace
    if config.plain:
        return computed(model.loader, examples, "the plain path recomputes it", longest_row(examples))
    # Machines that share a cache folder keep their features separate: each fills its folder with its own ranks.
    folder = shared.features or shared.cache / "features"
    folder /= "" if world.local_size == world.size else f"machine-{world.machine}"
    limit_bytes = int(config.features.limit_gigabytes * 1e9)
    code, known = shared.features_code_sha256(), shared.known_tensors
    store = FeatureStore(folder, limit_bytes, world, code, known, context.observer.warning)
    recipe = None if strategy.builds else recipe_of(planned, strategy, model.prefix)
    third_party = strategy.source.sha256 if strategy.builds else ""
    return store.open(model.loader, examples, model.suffix.width, recipe, third_party)
