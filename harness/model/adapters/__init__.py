"""Adapters: small trained parts added to a frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from harness.config.strategy import IA3, AnyAdapter, PrefixTuning, PromptTuning
from harness.model.adapters.adapted import Adapted, replace_layers
from harness.model.adapters.ia3 import RescaledInputs, RescaledOutputs
from harness.model.adapters.lora import DoRALinear, LoRALinear
from harness.model.adapters.prefix import add_prefixes
from harness.model.adapters.prompt import add_prompt
from harness.model.selectors import Stages, selected_layers


def adapt(classifier: nn.ModuleDict, stages: Stages, parts: Mapping[str, str], adapter: AnyAdapter) -> None:
    """Adapt layers of `classifier`, a "backbone" with its "head".

    stages: those of the backbone that are used, by name. parts: as `Backbone.parts`. Raises
    UserError where a target matches nothing.
    """

    def targets(names: Sequence[str]) -> set[nn.Linear]:
        return {layer for name in names for layer in selected_layers(stages, parts, name)}

    if isinstance(adapter, IA3):
        outputs, inputs = targets(adapter.outputs), targets(adapter.inputs)
        replace_layers(classifier, lambda layer: RescaledOutputs(layer) if layer in outputs else None)
        replace_layers(classifier, lambda layer: RescaledInputs(layer) if layer in inputs else None)
    elif isinstance(adapter, PrefixTuning):
        add_prefixes(stages, parts, adapter)
    elif isinstance(adapter, PromptTuning):
        add_prompt(stages["embeddings"], adapter)
    else:
        chosen, form = targets(adapter.targets), DoRALinear if adapter.trains_size else LoRALinear
        if not adapter.targets:
            roots = [*stages.values(), classifier["head"]]
            chosen = {part for root in roots for part in root.modules() if isinstance(part, nn.Linear)}
        replace_layers(classifier, lambda layer: form(layer, adapter) if layer in chosen else None)


def begin_adapters(module: nn.Module) -> None:
    """For a model that has got its parameters after it was adapted."""
    for part in module.modules():
        if isinstance(part, Adapted):
            part.begin()
