"""The one cut: a backbone and a strategy become a frozen prefix and a trained suffix.

The boundary follows from `requires_grad`: the prefix is every stage below the first trained parameter in
execution order. The prefix never changes during a run, so what it computes for an example never changes either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness import UserError
from harness.config import Precision
from harness.declare import AttentionKind, Readout, Strategy
from harness.engine.precision import compute_context, parameter_dtype, store_frozen
from harness.model.adapters import adapt
from harness.model.gpt2 import GPT2, Block, Rows, run_stages, take


class Prefix(nn.Module):
    """The frozen stages below the cut. Where there are none, the features are the token ids themselves."""

    def __init__(self, stages: list[nn.Module], attention: AttentionKind, boundary: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.attention: AttentionKind = attention
        self.boundary = boundary
        self.computed_tokens = 0

    def place(self, device: torch.device, precision: Precision) -> None:
        self.precision: Precision = precision
        self.to(device, parameter_dtype(precision))
        store_frozen(self, precision)

    @torch.no_grad()
    def features(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """token_ids: [batch, length] int64, lengths: [batch] -> hidden states [batch, length, hidden].

        `computed_tokens` counts the tokens that went through a frozen stage, padding included.
        """
        if not self.stages:
            return token_ids
        self.computed_tokens += token_ids.numel()
        with compute_context(self.precision, token_ids.device):
            return run_stages(list(self.stages), token_ids, Rows(lengths, self.attention))


class Suffix(nn.Module):
    """The stages from the cut upwards, the readout and the head."""

    def __init__(
        self, stages: list[nn.Module], head: nn.Module, readout: Readout, attention: AttentionKind, plain: bool
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.readout: Readout = readout
        self.attention: AttentionKind = attention
        self.plain = plain

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features: what the prefix gave, lengths: [batch] int64 -> logits [batch, classes]."""
        stages, rows = list(self.stages), Rows(lengths, self.attention)
        if self.readout == "mean":
            hidden = run_stages(stages, features, rows)
            attended = torch.arange(hidden.shape[1], device=lengths.device) < lengths[:, None]
            total = (hidden * attended[..., None]).sum(dim=1)
            return self._classify(total / lengths[:, None])
        positions = torch.zeros_like(lengths) if self.readout == "first" else lengths - 1
        top = _index_of_last_block(stages)
        if top is None or self.plain:
            return self._classify(take(run_stages(stages, features, rows), positions)[:, 0])
        # Above the last block nothing mixes positions: from its queries on, only the readout is computed.
        hidden = run_stages(stages[:top], features, rows)
        hidden = stages[top](hidden, rows, positions)
        return self._classify(run_stages(stages[top + 1 :], hidden, rows)[:, 0])

    def _classify(self, hidden: Tensor) -> Tensor:
        """hidden: [batch, hidden] -> logits [batch, classes], never in bfloat16: the head decides on small margins."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden)


def split(backbone: GPT2, strategy: Strategy, classes: int, plain: bool = False) -> tuple[Prefix, Suffix]:
    """Freeze, unfreeze, adapt and cut `backbone` (which is used up) as `strategy` says.

    New parameters, the head first, are drawn from PyTorch's global generator. With `plain` the suffix computes
    every position of its top block, as a textbook's loop does.

    Raises UserError where the strategy names a stage that the backbone does not have.
    """
    backbone.requires_grad_(False)
    stages = backbone.stages()
    for name in strategy.trainable:
        for stage in _named_stages(stages, name):
            stage.requires_grad_(True)
    top_level = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.shape.hidden, classes)})
    for adapter in strategy.adapt:
        adapt(top_level, adapter)
    if strategy.build:
        strategy.build(backbone)
    stages = backbone.stages()
    cut = _boundary(stages) if strategy.cacheable else 0
    boundary = [*stages, "head"][cut]
    modules = list(stages.values())
    return (
        Prefix(modules[:cut], strategy.attention, boundary),
        Suffix(modules[cut:], top_level["head"], strategy.readout, strategy.attention, plain),
    )


def parameter_counts(prefix: Prefix, suffix: Suffix) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    parameters = [*prefix.parameters(), *suffix.parameters()]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _named_stages(stages: dict[str, nn.Module], name: str) -> list[nn.Module]:
    if name == "all":
        return list(stages.values())
    blocks = sum(stage.startswith("block.") for stage in stages)
    resolved = name
    kind, _, number = name.partition(".")
    if kind == "block" and number.lstrip("-").isdigit() and -blocks <= int(number) < 0:
        resolved = f"block.{blocks + int(number)}"
    if resolved not in stages:
        raise UserError(
            f"strategy trains {name!r}, which this backbone does not have: expected 'all', 'embeddings', "
            f"'final_norm' or 'block.N' with N from {-blocks} to {blocks - 1}."
        )
    return [stages[resolved]]


def _boundary(stages: dict[str, nn.Module]) -> int:
    """How many stages, from the bottom, hold no trained parameter."""
    for index, stage in enumerate(stages.values()):
        if any(parameter.requires_grad for parameter in stage.parameters()):
            return index
    return len(stages)


def _index_of_last_block(stages: list[nn.Module]) -> int | None:
    return next((index for index in reversed(range(len(stages))) if isinstance(stages[index], Block)), None)
