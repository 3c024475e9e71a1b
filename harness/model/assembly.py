"""From a configuration to the two parts of its model, with their parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from harness.config.schema import RunConfig
from harness.config.strategy import Strategy
from harness.model.models import Model
from harness.model.split import Prefix, Suffix, split

Fill = Callable[[str], None]


def assemble(
    config: RunConfig, strategy: Strategy, model: Model, weights_path: Path | None, classes: int
) -> tuple[Prefix, Suffix, Fill | None]:
    """Prefix and suffix of `model` as `strategy` cuts it; new parameters are drawn by the run's seed.

    The suffix has its parameters. The third value gives a stage of the prefix, by name, its own (see `Prefix.place`):
    where stored features serve, it never is asked to (a hub's model is read whole all the same). It is None where they
    are there already.
    """
    torch.manual_seed(config.seed)
    backbone, weights = model.empty(), model.weights(config.model, weights_path)
    if strategy.build:  # its code may look at parameters
        weights.fill(backbone, backbone.stages())
        return *split(backbone, strategy, classes, config.plain), None
    prefix, suffix = split(backbone, strategy, classes, config.plain)
    weights.fill(backbone, suffix.names)
    return prefix, suffix, lambda stage: weights.fill(backbone, [stage])
