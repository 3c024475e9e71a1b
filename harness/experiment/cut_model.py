"""The model of a run, cut as its strategy says and with its kernels."""

from __future__ import annotations

from dataclasses import dataclass

from harness import kernels
from harness.data.encoding import Examples
from harness.experiment.context import Context
from harness.features.loader import PrefixLoader
from harness.kernels.occurring_tokens import FullTable, train_occurring_tokens
from harness.model.assembly import assemble
from harness.model.split import Prefix, Suffix, parameter_counts
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy


@dataclass(frozen=True)
class CutModel:
    """A model as the strategy cuts it. loader: of the prefix. parameters: all, and those that are trained.

    full_table: of the token embedding, where only the rows of occurring tokens are trained and all are needed.
    """

    prefix: Prefix
    suffix: Suffix
    loader: PrefixLoader
    parameters: tuple[int, int]
    full_table: FullTable | None


def build_model(
    planned: PlannedRun, strategy: ResolvedStrategy, examples: dict[str, Examples], classes: int, context: Context
) -> CutModel:
    config, device = planned.config, context.world.device
    strategy.check_code()
    model = context.workspace.model(planned.model.name)
    weights = model.weights(planned.model.config, planned.model.weights_path)
    prefix, suffix, fill = assemble(strategy.strategy(), model, weights, classes, config.seed)
    parameters, full_table = parameter_counts(prefix, suffix), None
    if not config.plain:
        kernels.optimize(suffix, device, config.precision)
        # A third party's `build` may count on the complete embedding.
        full_table = None if strategy.builds else train_occurring_tokens(suffix, examples)
    suffix.recomputes_blocks = config.training.gradient_checkpointing
    loader = PrefixLoader(prefix, fill, device, config.precision, config.plain)
    return CutModel(prefix, suffix, loader, parameters, full_table if planned.save or config.forgetting else None)
