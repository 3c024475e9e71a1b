"""The phase "fit_head" of a run: the head is fitted to what it reads before the first step, and the engine gets it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.config.schema import Precision
from harness.data.encoding import Examples
from harness.experiment.context import Context
from harness.experiment.cut_model import build_model
from harness.experiment.opened_features import open_features
from harness.features.features import Features
from harness.features.store import OpenedFeatures
from harness.features.token_budget import TokenBudget
from harness.model.packing import PackedBatch
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.results.record import HeadFit
from harness.training.batches import TrainingBatches
from harness.training.engines.protocol import Engine
from harness.training.evaluation import predict
from harness.training.head_fit import FittedHead, Read, fit_head


def open_read(
    planned: PlannedRun,
    strategy: ResolvedStrategy,
    opened: OpenedFeatures,
    examples: dict[str, Examples],
    classes: int,
    context: Context,
) -> OpenedFeatures:
    """The hidden states that the head reads before any step: the features of the strategy that trains it alone. The
    report is on all that was opened until here.

    opened: the features of the run, which they are where it trains nothing else.
    """
    head_only = strategy.head_only
    if head_only == strategy:
        return opened
    model = build_model(planned, head_only, examples, classes, context)
    read, report = open_features(planned, head_only, model, examples, context)
    return read, opened[1].followed_by(report)


def begin_with_fitted_head(
    engine: Engine,
    read: Mapping[str, Features],
    examples: Mapping[str, Examples],
    batches: TrainingBatches,
    precision: Precision,
    context: Context,
) -> HeadFit:
    """Fit the head on the first rank and give it to the engine; every rank calls it. read: as `open_read` gives."""
    world = context.world
    budget = TokenBudget.of(world, batches.hidden, precision, context.observer.warning)
    found = {
        part: Read(predict(_AsRead(), read[part], world, budget=budget), examples[part].labels)
        for part in ("train", "validation")
    }
    local = fit_head(found["train"], found["validation"], batches.weights) if world.rank == 0 else None
    head = world.gather(local)[0]
    values = engine.values()
    engine.set_values(values | _values(head, values) if values else values)
    return HeadFit(strength=head.strength, validation_loss=head.validation_loss)


def _values(head: FittedHead, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """values: of the trained parameters by name."""
    weight = torch.from_numpy(head.weight)
    given = {"head.weight": weight, "head.bias": torch.from_numpy(head.bias)}
    # Of DoRA, which begins at the norms of the weight.
    return given | {"head.size": weight.norm(dim=1)} if "head.size" in values else given


class _AsRead:
    """A scorer that scores nothing: the features are what the head reads, a vector of each row."""

    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        return features
