"""What a backbone is to the rest of the harness: stages in execution order, whatever network they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from harness.config.strategy import AttentionKind
from harness.model.attention import DotProductAttention
from harness.model.packing import PackedBatch

# The Linear layers of a block in most networks.
PARTS = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.expand", "mlp.contract")


class Stage(nn.Module):
    """A part that looks at rows: called with hidden states [tokens, hidden] (the first one: token ids [tokens]) and the
    batch. A stage of any other type is a norm, called with hidden states alone."""


class Block(Stage):
    """The only stages that mix positions: [tokens, hidden] -> the same."""


class Backbone(nn.Module, ABC):
    """hidden: the width of its hidden states. context: the most tokens of a row. attention: what it was pretrained
    with. parts: the Linear layers of a block, dotted names below it by what they do, such as "attention.query"."""

    parts: Mapping[str, str]
    embeddings: nn.Module
    blocks: nn.ModuleList
    final_norm: nn.Module
    attention: AttentionKind

    def __init__(self, hidden: int, context: int, attention: AttentionKind = "causal") -> None:
        super().__init__()
        self.hidden, self.context, self.attention = hidden, context, attention

    def stages(self) -> dict[str, nn.Module]:
        """The parts that can be trained or frozen, by name, in execution order."""
        blocks = {f"block.{index}": block for index, block in enumerate(self.blocks)}
        return {"embeddings": self.embeddings, **blocks, "final_norm": self.final_norm}

    def set_attention(self, kind: AttentionKind) -> None:
        """Make every block attend as `kind` says."""
        for module in self.modules():
            if isinstance(module, DotProductAttention):
                module.causal = kind == "causal"

    @abstractmethod
    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]. Raises UserError where the backbone is no language model."""

    def forward(self, token_ids: Tensor, batch: PackedBatch) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states after the final norm [tokens, hidden]."""
        return run_stages(self.stages().values(), token_ids, batch)


def run_stages(stages: Iterable[nn.Module], hidden: Tensor, batch: PackedBatch) -> Tensor:
    """Run consecutive stages; the input is token ids where the first of them is the embeddings."""
    for stage in stages:
        hidden = stage(hidden, batch) if isinstance(stage, Stage) else stage(hidden)
    return hidden
