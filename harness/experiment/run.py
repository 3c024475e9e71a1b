"""A run from start to finish: data, model, engine, features, training, evaluation, result. The page to read first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from harness.config.schema import RunConfig
from harness.data.encoding import Examples
from harness.experiment.context import Context
from harness.experiment.cut_model import CutModel, build_model
from harness.experiment.forgetting import forgetting
from harness.experiment.head import begin_with_fitted_head, open_read
from harness.experiment.joint import Share
from harness.experiment.opened_features import open_features
from harness.experiment.records.facts import (
    all_metrics,
    calibration,
    data_facts,
    measured_communication,
    prefix_facts,
    step_graphs,
)
from harness.experiment.texts import load_texts
from harness.features.features import Features
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
    planned: PlannedRun,
    strategy: ResolvedStrategy,
    checkpoints: Checkpoints,
    context: Context,
    outcome: Outcome,
    joint: Share | None = None,
) -> None:
    """Do what `planned` says and leave what it gives in `outcome`, on every rank. joint: its share
    of a training of several runs as one model."""
    config, training, world = planned.config, planned.training, context.world

    with context.phase("prepare"):
        texts = load_texts(planned, strategy, context)
        dataset, examples = texts.dataset, texts.examples
        outcome.data = data_facts(planned, dataset, examples)
        classes = dataset.source.classes
        model = build_model(planned, strategy, texts.every, len(classes), context)
        outcome.parameters, outcome.trainable_parameters = model.parameters
        engine = open_engine(config.engine, config.precision, world, fused=not config.plain)
        engine.prepare(model.suffix, config.optimizer)

    with context.phase("features"):
        opened = open_features(planned, strategy, model, texts.every, context)
        features, report = texts.features(opened[0]), opened[1]
        read = None
        if strategy.fits_head:
            stored, report = open_read(planned, strategy, opened, texts.every, len(classes), context)
            read = texts.features(stored)

    with context.phase("train"):
        hidden = model.suffix.width
        batches = TrainingBatches(features["train"], examples["train"], training, config.seed, world, hidden=hidden)
        if read:
            outcome.head_fit = begin_with_fitted_head(engine, read, examples, batches, config.precision, context)
        selection = Selection(training, judge(config, model, engine, features, examples, context))
        if joint:
            outcome.curve, outcome.joint_runs = joint.give(engine, context.clock), joint.runs
        else:
            outcome.curve, outcome.resumed_from_step = train(
                engine, batches, config.optimizer, selection, checkpoints, context.clock, context.observer.progress
            )
        outcome.epochs = selection.facts()
        epochs = outcome.epochs.kept if outcome.epochs else training.epochs
        outcome.graphs = step_graphs(engine, world.device)

    with context.phase("evaluate"):
        logits = evaluate(config, model, engine, features, context)

    if planned.save or config.forgetting:
        tensors = trained_tensors(config, model, engine, epochs * batches.steps_of_epoch, batches.steps)
        pad_to = int(examples["test"].lengths[0]) if strategy.pad_to else None
        outcome.trained = Trained(tensors, classes, pad_to)
    outcome.communication = measured_communication(engine, batches, config.precision)
    engine.close()
    if config.forgetting and outcome.trained:
        outcome.forgetting = forgetting(planned, strategy, outcome.trained.tensors, context)
    outcome.prefix = prefix_facts(model.prefix, report, world)
    outcome.metrics = all_metrics(logits, examples, dataset, batches if strategy.takes_steps else None, epochs)
    outcome.calibration = calibration(logits, examples)
    test = examples["test"]
    outcome.test = Predictions(test.index, test.labels, probabilities(logits["test"]), classes)


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


def trained_tensors(config: RunConfig, model: CutModel, engine: Engine, done: int, steps: int) -> dict[str, Tensor]:
    """The trained parameters by name, on the first rank, with the full token embedding. done: how many of all `steps`
    they were trained for."""
    tensors = engine.values()
    if not model.full_table:
        return tensors
    rate_factor = model.suffix.rate_factor(model.full_table.name)
    return model.full_table.complete(tensors, untrained_factor(config.optimizer, done, steps, rate_factor))


def evaluate(
    config: RunConfig, model: CutModel, engine: Engine, features: Mapping[str, Features], context: Context
) -> dict[str, np.ndarray]:
    """Logits [examples, classes] of each part. The prefix is left in evaluation mode."""
    model.prefix.eval()
    batch_size = config.training.batch_size if config.plain else None
    budget = TokenBudget.of(context.world, model.suffix.width, config.precision, context.observer.warning)
    return {name: predict(engine, part, context.world, batch_size, budget) for name, part in features.items()}
