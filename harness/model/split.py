"""The one cut: a backbone and a strategy become a frozen prefix and a trained suffix.

The boundary follows from `requires_grad`: the prefix is every stage below the first trained parameter in
execution order. The prefix never changes during a run, so what it computes for an example never changes either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.config.schema import Precision
from harness.config.strategy import Readout, Strategy
from harness.errors import UserError
from harness.kernels.cpu_products import pack, unpack
from harness.model.backbone import Backbone, Block, run_stages
from harness.model.lora import adapt
from harness.model.packing import Rows
from harness.model.precision import compute_context, parameter_dtype, store_frozen


class Prefix(nn.Module):
    """The frozen stages below the cut, by name. Where there are none, the features are the token ids themselves.

    readout: where nothing above the cut mixes positions, so that the prefix hands over what is read only.
    cacheable: what the strategy says. boundary: the name of the first stage above the cut. causal: whether no token's
    features depend on those after it; False where code of a third party leaves that open.
    """

    def __init__(
        self, stages: dict[str, nn.Module], boundary: str, readout: Readout | None, cacheable: bool, causal: bool
    ) -> None:
        super().__init__()
        self.names = tuple(stages)
        self.stages = nn.ModuleList(stages.values())
        self.boundary = boundary
        self.readout: Readout | None = readout
        self.cacheable = cacheable
        self.causal = causal
        self.computed_tokens = 0

    def place(self, device: torch.device, precision: Precision, fill: Callable[[str], None] | None = None) -> None:
        """Bring the stages to `device` in the types of `precision`, one after the other.

        fill: gives the named stage its parameters first. On a CPU all of them end in one block of memory, which goes
        back to the system at once when it is freed; many small blocks would be kept by the allocator.
        """
        self.precision: Precision = precision
        block, used = None, 0
        for name, stage in zip(self.names, self.stages, strict=True):
            if fill:
                fill(name)
            stage.to(device, parameter_dtype(precision))
            store_frozen(stage, precision)
            if device.type != "cpu":
                continue
            if block is None:  # memory that is not written to costs nothing: room for all in the widest type
                sizes = [parameter.numel() for stage in self.stages for parameter in stage.parameters()]
                block = torch.empty(
                    sum(sizes) * parameter_dtype(precision).itemsize + 64 * len(sizes), dtype=torch.uint8
                )
            for parameter in stage.parameters():
                place = block[used : used + parameter.nbytes].view(parameter.dtype).view(parameter.shape)
                parameter.data = place.copy_(parameter.data)
                used += -(-parameter.nbytes // 64) * 64
            pack(stage)

    def release(self) -> None:
        """Let go of all tensors."""
        unpack(self)
        self.to("meta")

    @torch.no_grad()
    def features(self, inputs: Tensor, rows: Rows, done: int = 0) -> Tensor:
        """inputs: [tokens] int64 -> hidden states [tokens, hidden], or [rows, hidden] where it reads.

        done: how many stages, from the lowest, have been at work already: `inputs` are their hidden states then.
        `computed_tokens` counts the tokens that went through a frozen stage, padding included.
        """
        stages = list(self.stages)[done:]
        if not stages:
            return inputs
        self.computed_tokens += len(inputs)
        with compute_context(self.precision, inputs.device):
            if self.readout:
                return read(stages, inputs, rows, self.readout)
            return run_stages(stages, inputs, rows)


class Suffix(nn.Module):
    """The stages from the cut upwards, the readout and the head.

    readout: None where the prefix has read already. plain: compute every position of the top block, as a textbook's
    loop does.
    """

    def __init__(
        self, stages: dict[str, nn.Module], head: nn.Module, readout: Readout | None, plain: bool = False
    ) -> None:
        super().__init__()
        self.names = tuple(stages)
        self.stages = nn.ModuleList(stages.values())
        self.head = head
        self.readout: Readout | None = readout
        self.plain = plain

    @property
    def width(self) -> int:
        """Of the hidden states that it reads."""
        return self.head.in_features

    def forward(self, features: Tensor, rows: Rows) -> Tensor:
        """features: what the prefix gave -> logits [rows, classes]."""
        hidden = read(list(self.stages), features, rows, self.readout, self.plain) if self.readout else features
        # Never in bfloat16: the head decides on small margins.
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden)


def read(stages: list[nn.Module], hidden: Tensor, rows: Rows, readout: Readout, plain: bool = False) -> Tensor:
    """Run `stages` and read one vector of each row: [rows, hidden].

    Above the last block nothing mixes positions: from its queries on, only the token that is read is computed.
    """
    if readout == "mean":
        rectangle = rows.rectangle(run_stages(stages, hidden, rows))
        return (rectangle * rows.attended()[..., None]).sum(dim=1) / rows.lengths[:, None]
    blocks = [index for index, stage in enumerate(stages) if isinstance(stage, Block)]
    top = blocks[-1] if blocks and not plain else len(stages)
    hidden, rows = rows.apart(run_stages(stages[:top], hidden, rows))
    read_at = rows.starts if readout == "first" else rows.starts + rows.lengths - 1
    if top == len(stages):
        return hidden[read_at]
    return run_stages(stages[top + 1 :], stages[top](hidden, rows, read_at), rows)


def split(backbone: Backbone, strategy: Strategy, classes: int, plain: bool = False) -> tuple[Prefix, Suffix]:
    """Freeze, unfreeze, adapt and cut `backbone` (which is used up) as `strategy` says.

    New parameters, the head first, are drawn from PyTorch's global generator.
    Raises UserError where the strategy names a stage that the backbone does not have.
    """
    backbone.requires_grad_(False)
    strategy = strategy.resolved_for(backbone.attention)
    backbone.set_attention(strategy.attention)
    for name in strategy.trainable:
        for stage in _named_stages(backbone.stages(), name):
            stage.requires_grad_(True)
    whole = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(backbone.hidden, classes)})
    for adapter in strategy.adapt:
        adapt(whole, adapter)
    if strategy.build:
        strategy.build(backbone)
    stages = backbone.stages()
    cut = _boundary(stages)
    below, above = dict(list(stages.items())[:cut]), dict(list(stages.items())[cut:])
    reads_below = not above and not plain
    prefix = Prefix(
        below,
        [*above, "head"][0],
        strategy.readout if reads_below else None,
        strategy.cacheable,
        causal=strategy.attention == "causal" and strategy.build is None,
    )
    return prefix, Suffix(above, whole["head"], None if reads_below else strategy.readout, plain)


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
    """How many stages, from the bottom, hold no trained parameter.

    Embeddings alone are no prefix: to look a token up again costs no more than to read what was looked up.
    """
    frozen = len(stages)
    for index, stage in enumerate(stages.values()):
        if any(parameter.requires_grad for parameter in stage.parameters()):
            frozen = index
            break
    return 0 if frozen == 1 else frozen
