"""GPT-2 (Radford et al., 2019) without its output layer: embeddings, pre-LayerNorm blocks, final norm.

Hidden states are flat, [tokens, hidden]: the rows of a batch stand one after the other without padding between
them, and `Rows` says where each begins. Only attention looks at rows; it alone works on a padded rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.declare import AttentionKind


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


# A CPU's matrix library compiles and keeps a kernel for each shape it meets: batches of any number of tokens would
# cost more than half of each step and hundreds of MB. Rounded up, they meet a few dozen shapes.
TOKENS_MULTIPLE = 32


@dataclass(frozen=True)
class Rows:
    """Where the rows of a batch lie in a flat sequence of tokens.

    starts, lengths: [rows] int64, the first token of each row and how many tokens of it are attended to.
    width: of the rectangle [rows, width] that attention works on.
    cells: [tokens] int64, each token's cell of that rectangle; None where the tokens fill it.
    filler: how many tokens that belong to no row follow the last one (see `TOKENS_MULTIPLE`).
    """

    starts: Tensor
    lengths: Tensor
    width: int
    cells: Tensor | None
    filler: int = 0

    @classmethod
    def packed(cls, lengths: np.ndarray) -> Rows:
        """Rows without padding between them. The flat tensor that goes with them is made by `fill`."""
        width, count = int(lengths.max()), int(lengths.sum())
        starts = np.cumsum(lengths) - lengths
        filler = 0 if width == 1 else -count % TOKENS_MULTIPLE
        if (lengths == width).all() and not filler:
            return cls(torch.from_numpy(starts), torch.from_numpy(lengths), width, None)
        cells = np.repeat(np.arange(len(lengths)) * width - starts, lengths) + np.arange(count)
        return cls(*map(torch.from_numpy, (starts, lengths)), width, torch.from_numpy(cells), filler)

    @classmethod
    def padded(cls, lengths: np.ndarray, width: int) -> Rows:
        """Rows that padding, which nobody attends to, fills up to `width` tokens."""
        return cls(torch.arange(len(lengths)) * width, torch.from_numpy(lengths), width, None)

    def to(self, device: torch.device) -> Rows:
        if self.lengths.device == device:
            return self
        cells = None if self.cells is None else self.cells.to(device, non_blocking=True)
        starts, lengths = (part.to(device, non_blocking=True) for part in (self.starts, self.lengths))
        return Rows(starts, lengths, self.width, cells, self.filler)

    def fill(self, flat: Tensor) -> Tensor:
        """[tokens, ...] of the rows alone -> with zeros for the filler tokens behind them."""
        return torch.cat([flat, flat.new_zeros(self.filler, *flat.shape[1:])]) if self.filler else flat

    def positions(self) -> Tensor:
        """The position of each token in its row, [tokens]."""
        if self.cells is None:
            return torch.arange(self.width, device=self.lengths.device).repeat(len(self.lengths))
        return self.fill(self.cells % self.width)

    def rectangle(self, flat: Tensor) -> Tensor:
        """[tokens, hidden] -> [rows, width, hidden], zero where there is no token."""
        rows = len(self.lengths)
        if self.cells is not None:
            blank = flat.new_zeros(rows * self.width, flat.shape[1])
            flat = blank.index_copy(0, self.cells, flat[: len(self.cells)])
        return flat.view(rows, self.width, -1)

    def flatten(self, rectangle: Tensor) -> Tensor:
        """[rows, width, hidden] -> [tokens, hidden]."""
        flat = rectangle.flatten(0, 1)
        return flat if self.cells is None else self.fill(flat.index_select(0, self.cells))

    def seen(self, counts: Tensor) -> Tensor:
        """The first `counts` ([rows]) keys of each row, bool [rows, 1, 1, width], as attention takes a mask."""
        return (torch.arange(self.width, device=counts.device) < counts[:, None])[:, None, None, :]


class Embeddings(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position = nn.Embedding(shape.context, shape.hidden)

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self.token(token_ids) + self.position(rows.positions())


class SelfAttention(nn.Module):
    """Multi-head self-attention. Query, key and value are separate matrices (the published file fuses them):
    the top block needs keys and values everywhere but queries only where the answer is read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.causal = True
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor, rows: Rows, read_at: Tensor | None) -> Tensor:
        """hidden: [tokens, hidden] -> the same; or [rows, hidden] at the tokens `read_at` ([rows]), one of each row."""
        key, value = (self._by_head(rows.rectangle(project(hidden))) for project in (self.key, self.value))
        if read_at is None:
            query = self._by_head(rows.rectangle(self.query(hidden)))
            mask = None if self.causal else rows.seen(rows.lengths)
            mixed = _attend(query, key, value, mask, self.causal)
            return self.output(rows.flatten(mixed.transpose(1, 2).flatten(2)))
        query = self._by_head(self.query(hidden[read_at])[:, None])
        mask = rows.seen(read_at - rows.starts + 1 if self.causal else rows.lengths)
        mixed = _attend(query, key, value, mask)
        return self.output(mixed.flatten(1))

    def _by_head(self, projected: Tensor) -> Tensor:
        """[rows, width, hidden] -> [rows, heads, width, hidden / heads]."""
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention; mask: bool, true where a key is seen."""
    if torch.is_grad_enabled() and query.device.type == "cpu":
        # The backward pass of a CPU's fused attention is 2 to 4 times slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            wide = [part.float() if part.dtype == torch.bfloat16 else part for part in (query, key, value)]
            return F.scaled_dot_product_attention(*wide, attn_mask=mask, is_causal=causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.expand = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.contract = nn.Linear(4 * shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(_linear_gelu(self.expand, hidden))


def _linear_gelu(layer: nn.Linear, hidden: Tensor) -> Tensor:
    fusable = layer.weight.dtype == torch.bfloat16 and hidden.device.type == "cpu" and type(layer) is nn.Linear
    if fusable and not torch.is_grad_enabled():
        # PyTorch's own fused kernel, which its compiler uses: GELU while the product is still in registers. Alone it
        # takes a tenth of the prefix's time.
        return torch.ops.mkldnn._linear_pointwise(hidden.bfloat16(), layer.weight, layer.bias, "gelu", [], "tanh")
    return F.gelu(layer(hidden), approximate="tanh")


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.hidden)
        self.attention = SelfAttention(shape)
        self.mlp_norm = nn.LayerNorm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, rows: Rows, read_at: Tensor | None = None) -> Tensor:
        """[tokens, hidden] -> the same, or [rows, hidden] at the tokens `read_at` ([rows]) only."""
        residual = hidden if read_at is None else hidden[read_at]
        residual = residual + self.attention(self.attention_norm(hidden), rows, read_at)
        return residual + self.mlp(self.mlp_norm(residual))


class GPT2(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.final_norm = nn.LayerNorm(shape.hidden)

    def stages(self) -> dict[str, nn.Module]:
        """The parts that can be trained or frozen, by name, in execution order."""
        blocks = {f"block.{index}": block for index, block in enumerate(self.blocks)}
        return {"embeddings": self.embeddings, **blocks, "final_norm": self.final_norm}

    def set_attention(self, kind: AttentionKind) -> None:
        for block in self.blocks:
            block.attention.causal = kind == "causal"

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states after the final norm [tokens, hidden]."""
        return run_stages(list(self.stages().values()), token_ids, rows)

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary], by the output layer that is tied to the token embedding."""
        return F.linear(hidden, self.embeddings.token.weight)


def run_stages(stages: Sequence[nn.Module], hidden: Tensor, rows: Rows) -> Tensor:
    """Run consecutive stages; the input is token ids where the first of them is the embeddings."""
    for stage in stages:
        hidden = stage(hidden) if isinstance(stage, nn.LayerNorm) else stage(hidden, rows)
    return hidden
