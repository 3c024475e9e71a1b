"""GPT-2 (Radford et al., 2019) without its output layer: embeddings, pre-LayerNorm blocks, final norm.

Every part takes right-padded rows: hidden states [batch, length, hidden] and, in `Rows`, how many
tokens of each row are attended to. Positions count from 0 at the left, so a row's result does not
depend on the padding to its right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rows:
    """Who may look at whom in a batch of right-padded rows.

    lengths: [batch] int64, the number of attended tokens of each row.
    attention: "causal" or "full".
    """

    lengths: Tensor
    attention: AttentionKind = "causal"

    def mask(self, width: int, positions: Tensor | None) -> Tensor | None:
        """Keys that each query may see, bool [batch, 1, 1, width]; None: all those up to its own position.

        positions: [batch], where each row has one query only; None: one query at every position.
        """
        if self.attention == "full":
            seen = self.lengths
        elif positions is not None:
            seen = positions + 1
        else:
            return None
        return (torch.arange(width, device=seen.device) < seen[:, None])[:, None, None, :]


class Embeddings(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.vocabulary, shape.hidden)
        self.position = nn.Embedding(shape.context, shape.hidden)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids: [batch, length] int64 -> hidden states [batch, length, hidden]."""
        positions = torch.arange(token_ids.shape[1], device=token_ids.device)
        return self.token(token_ids) + self.position(positions)


class SelfAttention(nn.Module):
    """Multi-head self-attention. Query, key and value are separate matrices (the published file fuses them):
    the top block needs keys and values everywhere but queries only where the answer is read."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(shape.hidden, shape.hidden)
        self.key = nn.Linear(shape.hidden, shape.hidden)
        self.value = nn.Linear(shape.hidden, shape.hidden)
        self.output = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor, queried: Tensor, rows: Rows, positions: Tensor | None) -> Tensor:
        """hidden: [batch, length, hidden] gives keys and values; queried: [batch, queries, hidden]."""
        mask = rows.mask(hidden.shape[1], positions)
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(queried)),
            self._split(self.key(hidden)),
            self._split(self.value(hidden)),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor) -> Tensor:
        """[batch, length, hidden] -> [batch, heads, length, hidden / heads]."""
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.expand = nn.Linear(shape.hidden, 4 * shape.hidden)
        self.contract = nn.Linear(4 * shape.hidden, shape.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(hidden), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.hidden)
        self.attention = SelfAttention(shape)
        self.mlp_norm = nn.LayerNorm(shape.hidden)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, rows: Rows, positions: Tensor | None = None) -> Tensor:
        """[batch, length, hidden] -> the same, or [batch, 1, hidden] at `positions` ([batch]) only."""
        normed = self.attention_norm(hidden)
        queried = normed if positions is None else take(normed, positions)
        residual = hidden if positions is None else take(hidden, positions)
        residual = residual + self.attention(normed, queried, rows, positions)
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

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [batch, length] int64 -> hidden states after the final norm [batch, length, hidden]."""
        return run_stages(list(self.stages().values()), token_ids, rows)

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary], by the output layer that is tied to the token embedding."""
        return F.linear(hidden, self.embeddings.token.weight)


def run_stages(stages: list[nn.Module], hidden: Tensor, rows: Rows) -> Tensor:
    """Run consecutive stages; the input is token ids where the first of them is the embeddings."""
    for stage in stages:
        hidden = stage(hidden, rows) if isinstance(stage, Block) else stage(hidden)
    return hidden


def take(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden: [batch, length, hidden], positions: [batch] -> [batch, 1, hidden]."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), positions][:, None, :]


def initialise(model: GPT2, generator: torch.Generator) -> None:
    """GPT-2's own random initialisation: N(0, 0.02) for matrices, projections onto the residual stream scaled
    by 1 / sqrt(2 * blocks), biases 0, norms 1 (Radford et al., 2019, section 2.3; the published code)."""
    onto_residual = 0.02 / math.sqrt(2 * model.shape.blocks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                scaled = name.endswith(("attention.output.weight", "mlp.contract.weight"))
                parameter.normal_(0.0, onto_residual if scaled else 0.02, generator=generator)
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.zero_()
