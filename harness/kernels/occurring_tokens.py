"""A trained token embedding without the rows that no text of a run looks up.

Such a row has no gradient: AdamW only shrinks it by the weight decay, by one factor for all rows in every step. That
needs neither moments nor a pass over the row in each step: it is applied once at the end where the full table is
needed. Losses and logits are the same. docs/performance.md says what it saves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    def complete(self, values: dict[str, Tensor], untrained_factor: float) -> dict[str, Tensor]:
        """The values of a suffix with the full table.

        values: what `Engine.values` gives: nothing on all ranks but the first. untrained_factor: what weight decay has
        multiplied a row by that is never trained (`harness.training.schedule`).
        """
        if not values:
            return values
        stayed = values[self.name]
        table = self.table.to(stayed.dtype) * untrained_factor
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
