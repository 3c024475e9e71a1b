"""The strategy of a run: what is declared, with what the configuration changes."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

import strategies
from harness.config.schema import RunConfig
from harness.config.strategy import Input, Strategy
from harness.errors import UserError
from harness.model.models import Model
from harness.model.split import Prefix, Suffix, split


def effective_strategy(config: RunConfig, model: Model) -> Strategy:
    """The declared strategy with what the configuration changes: readout, attention, padding, adapter; what both leave
    open is as the model was pretrained."""
    strategy = strategies.load(config.strategy).strategy
    changes = {
        "readout": config.readout,
        "attention": config.attention,
        "input": Input(config.pad_to) if config.pad_to is not None else None,
    }
    adapter = config.adapter.model_dump(exclude_none=True)
    if adapter:
        if not strategy.adapt:
            raise UserError(
                f"strategy {config.strategy!r} has no adapter: `adapter.rank` and `adapter.alpha` are lora's."
            )
        changes["adapt"] = tuple(replace(declared, **adapter) for declared in strategy.adapt)
    changed = replace(strategy, **{name: value for name, value in changes.items() if value is not None})
    return changed.resolved_for(model.attention)


def frozen_stages(strategy: Strategy, model: Model, classes: int) -> int:
    """How many stages its prefix has; 0 where only its own code knows.

    Raises UserError where it names a stage that the backbone does not have.
    """
    return 0 if strategy.build else _declared_frozen_stages(strategy, model, classes)


@functools.lru_cache
def _declared_frozen_stages(strategy: Strategy, model: Model, classes: int) -> int:
    return len(split_without_tensors(strategy, model, classes)[0].stages)


def trainable_parameters(strategy: Strategy, model: Model, classes: int) -> int:
    """How many parameters a strategy trains, without allocating any."""
    prefix, suffix = split_without_tensors(strategy, model, classes)
    return sum(p.numel() for p in [*prefix.parameters(), *suffix.parameters()] if p.requires_grad)


def split_without_tensors(strategy: Strategy, model: Model, classes: int) -> tuple[Prefix, Suffix]:
    """The cut, with parameters that have shapes only."""
    with torch.device("meta"):
        return split(model.empty(), strategy, classes)
