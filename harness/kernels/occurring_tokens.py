"""A trained token embedding without the rows that no text of a run looks up.

Such a row has no gradient: AdamW only shrinks it by the weight decay, by the same factor in every step (Loshchilov and
Hutter, arXiv:1711.05101, algorithm 2). That needs neither moments nor a pass over the row in each step: it is applied
once at the end where the full table is needed. Losses and logits are the same. docs/performance.md says what it saves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.schema import OptimizerConfig
from harness.data.encoding import Examples
from harness.model.gpt2 import Embeddings
from harness.model.split import Suffix


class OccurringTokens(nn.Module):
    """The rows of `table` for the tokens `ids` ([rows] int64, sorted); it knows no other."""

    def __init__(self, table: nn.Embedding, ids: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach()[ids])
        # No buffer: DistributedDataParallel would send it to all ranks in every step.
        self.places = torch.full((table.num_embeddings,), -1)
        self.places[ids] = torch.arange(len(ids))

    def forward(self, token_ids: Tensor) -> Tensor:
        self.places = self.places.to(token_ids.device)
        return F.embedding(self.places[token_ids], self.weight)


@dataclass(frozen=True)
class FullTable:
    """The token embedding of a suffix before the rows of other tokens were left out.

    name: of its parameter. ids: [rows] int64, the tokens that stayed. table: [vocabulary, hidden].
    """

    name: str
    ids: Tensor
    table: Tensor

    def complete(self, values: dict[str, Tensor], optimizer: OptimizerConfig, steps: int) -> dict[str, Tensor]:
        """The values of a suffix after `steps` training steps, with the full table.

        values: what `Engine.values` gives: nothing on all ranks but the first.
        """
        if not values:
            return values
        assert optimizer.learning_rate is not None, "a plan resolves it"
        stayed = values[self.name]
        table = self.table.to(stayed.dtype) * (1 - optimizer.learning_rate * optimizer.weight_decay) ** steps
        table[self.ids] = stayed
        return values | {self.name: table}


def train_occurring_tokens(suffix: Suffix, examples: dict[str, Examples]) -> FullTable | None:
    """Leave out the rows of a trained token embedding that no example needs; None where the suffix trains none."""
    for number, stage in enumerate(suffix.stages):
        if isinstance(stage, Embeddings) and type(stage.token) is nn.Embedding and stage.token.weight.requires_grad:
            # A batch is filled up with token 0, whatever that is.
            ids = torch.from_numpy(np.unique(np.concatenate([[0], *(part.token_ids for part in examples.values())])))
            table = stage.token.weight.detach()
            stage.add_module("token", OccurringTokens(stage.token, ids))
            return FullTable(f"stages.{number}.token.weight", ids, table)
    return None
