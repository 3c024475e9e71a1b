"""Runs of a suite that are trained as one model, before each of them is evaluated and recorded by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.experiment.context import Context
from harness.experiment.cut_model import build_model
from harness.experiment.opened_features import open_features
from harness.experiment.texts import load_texts
from harness.measure.clock import Clock
from harness.measure.memory import is_out_of_memory
from harness.model.assembly import assemble
from harness.planning.plan import PlannedRun
from harness.results.record import TrainingCurve
from harness.results.store import Store
from harness.training.batches import TrainingBatches
from harness.training.engines.protocol import Engine
from harness.training.joint import Member, TrainedMember, train_jointly
from harness.training.loop import stop_if_diverged


@dataclass(frozen=True)
class Share:
    """What a run has of a joint training. runs: how many were trained as one. seconds: its share of the time."""

    trained: TrainedMember
    runs: int
    seconds: float

    def give(self, engine: Engine, clock: Clock) -> TrainingCurve:
        """The trained parameters to the engine, and the time to the clock; returns the curve. Raises Diverged where a
        loss is not finite."""
        clock.phases["train"] = clock.phases.get("train", 0.0) + self.seconds
        stop_if_diverged(self.trained.curve)
        engine.set_values(self.trained.values)
        return self.trained.curve


class JointTrainings:
    """Of the groups of a plan. A group is trained when the first of its runs is wanted."""

    def __init__(self, groups: Iterable[list[PlannedRun]], store: Store) -> None:
        self._group_of = {planned.run_id: group for group in groups for planned in group}
        self._store = store
        self._shares: dict[str, Share] = {}

    def share_of(self, planned: PlannedRun, context: Context) -> Share | None:
        """None for a run that is to be trained by itself.

        Raises KeyboardInterrupt where a signal asks to stop: nothing of the group's training is kept.
        """
        group = self._group_of.pop(planned.run_id, [])
        pending = [one for one in group if not self._store.has(one.run_id)]
        for one in pending:  # whatever becomes of it, it is tried once
            self._group_of.pop(one.run_id, None)
        if len(pending) > 1:
            try:
                self._shares |= _trained(pending, context)
            except Exception as problem:
                if not is_out_of_memory(problem):
                    raise
                context.observer.warning(f"{len(pending)} runs don't fit into memory as one: trained one by one.")
        return self._shares.pop(planned.run_id, None)


def _trained(group: list[PlannedRun], context: Context) -> dict[str, Share]:
    """The share of each run by its id; none where features are not stored."""
    started = context.clock.now()
    members = _members(group, context)
    if not members:
        return {}
    with context.signals.postponed() as asked_to_stop:
        trained = train_jointly(members, group[0].config.precision, asked_to_stop, context.observer.progress)
    seconds = (context.clock.now() - started) / len(group)
    return {planned.run_id: Share(one, len(group), seconds) for planned, one in zip(group, trained, strict=True)}


def _members(group: list[PlannedRun], context: Context) -> list[Member]:
    first, workspace = group[0], context.workspace
    assert first.strategy is not None, "baselines are in no group"
    texts = load_texts(first, first.strategy, context)
    classes = len(texts.dataset.source.classes)
    model = build_model(first, first.strategy, texts.every, classes, context)
    opened, report = open_features(first, first.strategy, model, texts.every, context)
    if report.not_stored:
        return []
    members = []
    for planned in group:
        own = load_texts(planned, first.strategy, context) if planned.config.training.texts else texts
        backbone = workspace.model(planned.model.name)
        weights = backbone.weights(planned.model.config, planned.model.weights_path)
        _, suffix, _ = assemble(first.strategy.strategy(), backbone, weights, classes, planned.config.seed)
        features, examples = own.features(opened)["train"], own.examples["train"]
        batches = TrainingBatches(features, examples, planned.training, planned.config.seed, context.world)
        members.append(Member(suffix, batches, planned.config.optimizer))
    return members
