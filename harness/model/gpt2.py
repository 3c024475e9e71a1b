"""GPT-2 (Radford et al., 2019) without its output layer: embeddings, pre-LayerNorm blocks, final norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.strategy import AttentionKind
from harness.kernels.cpu_products import linear, linear_gelu
from harness.model.attention import Attended, Key, Norm, Value, attend, attend_once
from harness.model.backbone import Backbone, Block, Stage
from harness.model.packing import Rows


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    vocabulary: int
    context: int
    hidden: int
    blocks: int
    heads: int


SHAPES = {
    "mini": Shape(vocabulary=640, context=256, hidden=128, blocks=4, heads=4),
    "gpt2": Shape(vocabulary=50257, context=1024, hidden=768, blocks=12, heads=12),
    "gpt2-medium": Shape(vocabulary=50257, context=1024, hidden=1024, blocks=24, heads=16),
    "gpt2-large": Shape(vocabulary=50257, context=1024, hidden=1280, blocks=36, heads=20),
    "gpt2-xl": Shape(vocabulary=50257, context=1024, hidden=1600, blocks=48, heads=25),
}


class Embeddings(Stage):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position = nn.Embedding(shape.context, shape.hidden)

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self.token(token_ids) + self.position(rows.positions())


class SelfAttention(nn.Module):
    """Multi-head self-attention. Query, key and value are separate matrices (the published file fuses them): in the
    top block each goes through its own only where the answer is read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.causal = True
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = Key(shape.hidden, shape.hidden)
        self.value = Value(shape.hidden, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor, norm: nn.Module, rows: Rows, read_at: Tensor | None) -> Tensor:
        """hidden: [tokens, hidden], before `norm` -> the same; or [rows, hidden] at the tokens `read_at` ([rows]), one
        of each row."""
        attended = Attended(rows, self.causal, read_at)
        # An adapter, or a strategy that builds, may have put something else in their place.
        as_built = isinstance(norm, Norm) and isinstance(self.key, Key) and isinstance(self.value, Value)
        if read_at is not None and as_built:
            query = linear(self.query, norm(hidden[read_at]))
            return linear(self.output, attend_once(query, hidden, norm, self.key, self.value, self.heads, attended))
        hidden = norm(hidden)
        query = self.query(hidden if read_at is None else hidden[read_at])
        return self.output(attend(query, self.key(hidden), self.value(hidden), self.heads, attended))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.expand = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.contract = nn.Linear(4 * shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return linear(self.contract, linear_gelu(self.expand, hidden))


class GPT2Block(Block):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = Norm(shape.hidden)
        self.attention = SelfAttention(shape)
        self.mlp_norm = nn.LayerNorm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, rows: Rows, read_at: Tensor | None = None) -> Tensor:
        """[tokens, hidden] -> the same, or [rows, hidden] at the tokens `read_at` ([rows]) only."""
        residual = hidden if read_at is None else hidden[read_at]
        residual = residual + self.attention(hidden, self.attention_norm, rows, read_at)
        return residual + self.mlp(self.mlp_norm(residual))


class GPT2(Backbone):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.hidden, shape.context)
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.blocks = nn.ModuleList(GPT2Block(shape) for _ in range(shape.blocks))
        self.final_norm = nn.LayerNorm(shape.hidden)

    def set_attention(self, kind: AttentionKind) -> None:
        for block in self.blocks:
            block.attention.causal = kind == "causal"

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """By the output layer, which is tied to the token embedding."""
        return F.linear(hidden, self.embeddings.token.weight)
