"""The one cut: a backbone and a strategy become a frozen prefix and a trained suffix.

The boundary follows from `requires_grad`: the prefix is every stage below the first trained parameter in execution
order. It does not change during a run, so its output for an example does not change either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.config.schema import Precision
from harness.config.strategy import PromptTuning, Readout, Strategy
from harness.errors import UserError
from harness.model.adapters import adapt
from harness.model.adapters.prompt import prompted
from harness.model.backbone import Backbone, Block, Stage, run_stages
from harness.model.packing import PackedBatch
from harness.model.precision import compute_context, parameter_dtype, store_frozen
from harness.model.readout import readout_of
from harness.model.selectors import selected_parameters


class Part(nn.Module):
    """Consecutive stages of a backbone by name, and the readout where it lies in this part."""

    def __init__(self, stages: dict[str, nn.Module], readout: Stage | None) -> None:
        super().__init__()
        self.names = tuple(stages)
        self.stages = nn.ModuleList(stages.values())
        self.readout = readout

    def hidden_states(self, inputs: Tensor, batch: PackedBatch, done: int = 0) -> Tensor:
        """Of the stages from number `done` on: [tokens, hidden], or [rows, hidden] where this part reads."""
        readout = [] if self.readout is None else [self.readout]
        return run_stages([*list(self.stages)[done:], *readout], inputs, batch)


@dataclass(frozen=True)
class PrefixFacts:
    """What is known of a prefix without its tensors.

    boundary: the first stage above the cut. reads: the readout, where nothing above the cut mixes positions, so that
    the prefix hands over the tokens read only. cacheable: as the strategy says. causal: whether no token's features
    depend on those after it; False where third-party code leaves that open.
    """

    boundary: str
    reads: Readout | None
    cacheable: bool
    causal: bool


class Prefix(Part):
    """The frozen stages below the cut. Where there are none, the features are the token ids themselves.

    computed_tokens: tokens that went through it so far, padding included, for whoever computes features with it to
    count: a captured step runs no code of its own.
    """

    def __init__(self, stages: dict[str, nn.Module], facts: PrefixFacts, readout: Stage | None = None) -> None:
        super().__init__(stages, readout)
        self.facts = facts
        self.computed_tokens = 0

    def place(self, device: torch.device, precision: Precision, fill: Callable[[str], None] | None = None) -> None:
        """Bring the stages to `device` in the types of `precision`, one after the other, so that the float32 parameters
        of one stage only are held at a time. fill: gives the named stage its parameters first."""
        self.precision: Precision = precision
        for name, stage in zip(self.names, self.stages, strict=True):
            if fill:
                fill(name)
            stage.to(device, parameter_dtype(precision))
            store_frozen(stage, precision)

    def release(self) -> None:
        """Let go of all tensors."""
        self.to("meta")

    @torch.no_grad()
    def features(self, inputs: Tensor, batch: PackedBatch, done: int = 0) -> Tensor:
        """inputs: [tokens] int64 -> hidden states [tokens, hidden], or [rows, hidden] where it reads.

        done: how many stages, from the lowest, have run already: `inputs` are their hidden states then.
        """
        if done == len(self.stages):
            return inputs
        with compute_context(self.precision, inputs.device):
            return self.hidden_states(inputs, batch, done)


class Suffix(Part):
    """The stages from the cut upwards, the readout unless the prefix has read already, and the head.

    rate_decay: as the strategy's. first_position: of a row's tokens. prompt: how many trained vectors stand before
    them. recomputes_blocks: gradient checkpointing, off unless it is set.
    """

    def __init__(
        self, stages: dict[str, nn.Module], head: nn.Linear, readout: Stage | None, strategy: Strategy
    ) -> None:
        super().__init__(stages, readout)
        self.head, self.rate_decay = head, strategy.rate_decay
        self.prompt = sum(one.length for one in strategy.adapt if isinstance(one, PromptTuning))
        self.first_position = strategy.positions_before - self.prompt
        self.recomputes_blocks = False

    def hidden_states(self, inputs: Tensor, batch: PackedBatch, done: int = 0) -> Tensor:
        """Where it recomputes its blocks, only what enters each is kept for the backward pass (Chen et al.,
        arXiv:1604.06174)."""
        if not (self.recomputes_blocks and torch.is_grad_enabled()):
            return super().hidden_states(inputs, batch, done)
        hidden = inputs
        for stage in [*list(self.stages)[done:], *([] if self.readout is None else [self.readout])]:
            if isinstance(stage, Block):
                hidden = checkpoint(stage, hidden, batch, use_reentrant=False)
            else:
                hidden = run_stages([stage], hidden, batch)
        return hidden

    @property
    def width(self) -> int:
        """Of the hidden states that the head reads."""
        return self.head.in_features

    def rate_factor(self, name: str) -> float:
        """What the learning rate of the parameter `name` is multiplied by; a learned readout has the head's."""
        part, _, rest = name.partition(".")
        if part != "stages":
            return 1.0
        return self.rate_decay ** (len(self.stages) - int(rest.partition(".")[0]))

    def forward(self, features: Tensor, batch: PackedBatch) -> Tensor:
        """features: what the prefix gives -> logits [rows, classes]."""
        if self.first_position:
            batch = replace(batch, first_position=self.first_position)
        if self.prompt:
            features, batch = prompted(features, batch, self.prompt)
        hidden = self.hidden_states(features, batch)
        if batch.dropout is not None:
            hidden = hidden * batch.dropout.to(hidden.dtype)
        # Never in bfloat16: the head decides on small margins.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden)


def split(backbone: Backbone, strategy: Strategy, classes: int) -> tuple[Prefix, Suffix]:
    """Freeze, unfreeze, adapt and cut `backbone` (which is used up) as `strategy` says.

    New parameters, the head first, are drawn from PyTorch's global generator.
    Raises UserError where the strategy names what the backbone does not have.
    """
    backbone.requires_grad_(False)
    strategy = strategy.resolved_for(backbone.attention)
    assert strategy.attention is not None, "`resolved_for` sets it"
    backbone.set_attention(strategy.attention)
    stages = _up_to(strategy.readout_layer, backbone.stages())
    for name in strategy.trainable:
        for parameter in selected_parameters(stages, backbone.parts, name):
            parameter.requires_grad_(True)
    classifier = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.hidden, classes)})
    for adapter in strategy.adapt:
        adapt(classifier, stages, backbone.parts, adapter)
    if strategy.build:
        strategy.build(backbone)
    stages, head = _up_to(strategy.readout_layer, backbone.stages()), classifier["head"]
    assert isinstance(head, nn.Linear), "an adapted Linear is one"
    cut = _boundary(stages)
    below, above = dict(list(stages.items())[:cut]), dict(list(stages.items())[cut:])
    assert strategy.readout is not None, "`resolved_for` sets it"
    readout = readout_of(strategy.readout, backbone.hidden)
    is_trained = any(True for _ in readout.parameters())
    facts = PrefixFacts(
        boundary=[*above, "readout" if is_trained else "head"][0],
        reads=None if above or is_trained else strategy.readout,
        cacheable=strategy.cacheable,
        causal=strategy.attention == "causal" and strategy.build is None,
    )
    if facts.reads:
        return Prefix(below, facts, readout), Suffix(above, head, None, strategy)
    return Prefix(below, facts), Suffix(above, head, readout, strategy)


def parameter_counts(prefix: Prefix, suffix: Suffix) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    parameters = [*prefix.parameters(), *suffix.parameters()]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _up_to(layer: int, stages: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The stages without the blocks above number `layer`, which counts from the top where it is negative."""
    blocks = [name for name in stages if name.startswith("block.")]
    if not -len(blocks) <= layer < len(blocks):
        raise UserError(
            f"readout_layer={layer}: this backbone has no such block; expected one from {-len(blocks)} to "
            f"{len(blocks) - 1}."
        )
    above = blocks[layer % len(blocks) + 1 :]
    return {name: stage for name, stage in stages.items() if name not in above}


def _boundary(stages: dict[str, nn.Module]) -> int:
    """How many stages, from the bottom, hold no trained parameter.

    Embeddings alone are no prefix: to look a token up again costs no more than to read what was looked up.
    """
    frozen = len(stages)
    for index, stage in enumerate(stages.values()):
        if any(parameter.requires_grad for parameter in stage.parameters()):
            frozen = index
            break
    return 0 if frozen == 1 else frozen
