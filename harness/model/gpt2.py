"""GPT-2 (Radford et al., 2019) without its output layer: embeddings, pre-LayerNorm blocks, final norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.model.attention import DotProductAttention
from harness.model.backbone import PARTS, Backbone, Block, Stage
from harness.model.named.shapes import Shape
from harness.model.packing import PackedBatch


class Embeddings(Stage):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position = nn.Embedding(shape.context, shape.hidden)

    def forward(self, token_ids: Tensor, batch: PackedBatch) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self.token(token_ids) + self.position(batch.positions())


class SelfAttention(nn.Module):
    """Multi-head self-attention. Query, key and value are separate matrices; the published file fuses them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.hidden)
        self.attend = DotProductAttention()

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> the same."""
        return self.output(self.attend(self.query(hidden), self.key(hidden), self.value(hidden), self.heads, batch))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.expand = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.contract = nn.Linear(4 * shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> the same."""
        return self.contract(F.gelu(self.expand(hidden), approximate="tanh"))


class GPT2Block(Block):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.hidden)
        self.attention = SelfAttention(shape)
        self.mlp_norm = nn.LayerNorm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> the same."""
        hidden = hidden + self.attention(self.attention_norm(hidden), batch)
        return hidden + self.mlp(self.mlp_norm(hidden))


class GPT2(Backbone):
    def __init__(self, shape: Shape) -> None:
        super().__init__(shape.hidden, shape.context)
        self.shape, self.parts = shape, {name: name for name in PARTS}
        self.embeddings = Embeddings(shape)
        self.blocks = nn.ModuleList(GPT2Block(shape) for _ in range(shape.blocks))
        self.final_norm = nn.LayerNorm(shape.hidden)

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """By the output layer, which is tied to the token embedding."""
        return F.linear(hidden, self.get_parameter("embeddings.token.weight"))
