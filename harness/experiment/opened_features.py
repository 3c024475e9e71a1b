"""The features of a run: from the store where they can be stored, else computed each time."""

from __future__ import annotations

from harness.data.encoding import Examples, longest_row
from harness.experiment.context import Context
from harness.experiment.cut_model import CutModel
from harness.experiment.records.facts import recipe_of
from harness.features.store import FeatureStore, OpenedFeatures, computed
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy


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
