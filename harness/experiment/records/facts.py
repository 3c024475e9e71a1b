"""What the record of a run says of its data, its prefix, its steps and its metrics."""

from __future__ import annotations

import numpy as np
import torch

from harness.config.schema import Precision
from harness.data.dataset import Dataset
from harness.data.encoding import Examples
from harness.data.splits import SPLITS
from harness.distributed.process_group import World
from harness.features.store import FeatureReport
from harness.measure.communication import measure_communication
from harness.model.split import Prefix
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.results.quality import AllMetrics, Calibration, Metrics
from harness.results.record import Communication, DataFacts, PrefixFacts, StepGraphs
from harness.statistics import expected_calibration_error, fitted_temperature
from harness.training.batches import TrainingBatches
from harness.training.engines.protocol import Engine
from harness.training.evaluation import mean_loss, measure, probabilities


def data_facts(planned: PlannedRun, dataset: Dataset, examples: dict[str, Examples]) -> DataFacts:
    source = dataset.source
    return DataFacts(
        name=source.name,
        sha256=source.sha256,
        classes=source.classes,
        sizes={name: len(examples[name]) for name in SPLITS},
        best_accuracy=source.best_accuracy,
        test_in_train=sum(dataset.test_seen),
        test_near_train=dataset.test_near_train,
        cut_texts=sum(part.cut_texts for part in examples.values()),
        notes=planned.data_notes,  # a worker reads the data as planned, and finds nothing out
    )


def recipe_of(planned: PlannedRun, strategy: ResolvedStrategy, prefix: Prefix) -> str:
    """All that determines the tensors of a prefix, known before they are loaded."""
    model = planned.model.config
    origin = planned.model.weights_sha256, model.weights, model.init, model.init_seed
    return repr((model.name, origin, prefix.names, strategy.adapt, planned.config.precision))


def prefix_facts(prefix: Prefix, report: FeatureReport, world: World) -> PrefixFacts:
    """Tokens of distinct texts and beginnings where features are stored; else all that went through the prefix."""
    assert not any(parameter.requires_grad for parameter in prefix.parameters()), "the prefix was unfrozen in mid-run"
    computed = sum(world.gather(prefix.computed_tokens)) if report.not_stored else report.computed_tokens
    return PrefixFacts(
        boundary=prefix.facts.boundary,
        computed_tokens=computed,
        reused_tokens=report.reused_tokens,
        not_stored=report.not_stored,
    )


def step_graphs(engine: Engine, device: torch.device) -> StepGraphs | None:
    """How the training steps so far ran; None on a CPU, which has no graphs."""
    if device.type != "cuda":
        return None
    reason = engine.not_captured or (None if engine.graphs else "no shape of batch occurred twice")
    return StepGraphs(captured=engine.graphs, not_captured=reason)


def measured_communication(engine: Engine, batches: TrainingBatches, precision: Precision) -> Communication | None:
    """Over extra steps after the last evaluation, whose results nothing uses; None for a single rank."""
    world, first_epoch = batches.world, batches.of_epoch(0)
    if world.size == 1 or not batches.steps:
        return None
    local, count = batches.local(first_epoch[0]), len(first_epoch[0])
    return measure_communication(lambda: engine.step(local, count), 8 if precision == "fp64" else 4, world.device)


def all_metrics(
    logits: dict[str, np.ndarray],
    examples: dict[str, Examples],
    dataset: Dataset,
    batches: TrainingBatches | None = None,
    epochs: int = 0,
) -> AllMetrics:
    """logits: [examples, classes] of each part. batches: None for what takes no steps, as baselines. epochs: as many as
    the parameters were trained for."""
    classes = dataset.source.classes
    clean, labels = ~np.array(dataset.test_seen), examples["test"].labels
    return AllMetrics(
        **{name: measure(logits[name], part.labels, classes) for name, part in examples.items()},
        test_clean=measure(logits["test"][clean], labels[clean], classes) if clean.any() else None,
        train_batches=_metrics_of_batches(logits["train"], batches, epochs, classes) if batches else None,
    )


def _metrics_of_batches(
    logits: np.ndarray, batches: TrainingBatches, epochs: int, classes: list[str]
) -> Metrics | None:
    """Of the texts in the last epoch's batches; None where those are all, or none."""
    last_epoch = batches.of_epoch(max(epochs - 1, 0))
    trained = np.concatenate(last_epoch) if last_epoch else np.array([], dtype=int)
    labels = batches.examples.labels
    return measure(logits[trained], labels[trained], classes) if 0 < len(trained) < len(labels) else None


def calibration(logits: dict[str, np.ndarray], examples: dict[str, Examples]) -> Calibration:
    """logits: [examples, classes] of each part."""
    found = fitted_temperature(logits["validation"], examples["validation"].labels)
    if isinstance(found, str):
        return Calibration(not_fitted=found)
    scaled, labels = logits["test"] / found, examples["test"].labels
    return Calibration(
        temperature=found,
        test_loss=mean_loss(scaled, labels),
        test_calibration_error=expected_calibration_error(probabilities(scaled), labels),
    )
