"""From a resolved strategy to the two parts of its model, with their parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.config.strategy import Strategy
from harness.model.adapters import begin_adapters
from harness.model.named.models import Model
from harness.model.named.weights import Weights
from harness.model.split import Prefix, Suffix, split


def assemble(
    strategy: Strategy, model: Model, weights: Weights, classes: int, seed: int
) -> tuple[Prefix, Suffix, Callable[[str], None] | None]:
    """Prefix and suffix of `model` as `strategy` cuts it; new parameters are drawn by `seed`.

    The suffix has its parameters. The third value gives a stage of the prefix, by name, its parameters: where stored
    features serve, nobody calls it (a model of `transformers` is read completely all the same). None where they are
    there already.
    """
    torch.manual_seed(seed)
    backbone = model.empty()
    if strategy.build:  # its code may look at parameters
        weights.fill(backbone, backbone.stages())
        return *split(backbone, strategy, classes), None
    prefix, suffix = split(backbone, strategy, classes)
    weights.fill(backbone, suffix.names)
    begin_adapters(suffix)
    return prefix, suffix, lambda stage: weights.fill(backbone, [stage])
