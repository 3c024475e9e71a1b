"""Prompt tuning: trained vectors before the embedded tokens of a row (Lester et al., arXiv:2104.08691)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.strategy import PromptTuning
from harness.model.adapters.adapted import Adapted
from harness.model.packing import PackedBatch

# The ids from here on stand for the trained vectors: above every vocabulary, below the mark of a second text.
FIRST_ID = 1 << 23


class PromptedEmbedding(Adapted, nn.Embedding):
    """A table of token embeddings with a trained vector for each of the ids FIRST_ID, FIRST_ID + 1, ...

    Whatever a backbone adds to a token's embedding, such as its position's, it adds to these vectors too.
    """

    def __init__(self, table: nn.Embedding, length: int) -> None:
        super().__init__(table.num_embeddings, table.embedding_dim, table.padding_idx, _weight=table.weight)
        self.weight = table.weight
        self.prompt = nn.Parameter(torch.empty(length, table.embedding_dim))
        self._first_tokens = torch.randint(table.num_embeddings, (length,))
        if not table.weight.is_meta:
            self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Take the embeddings of the tokens drawn."""
        self.prompt.copy_(self.weight[self._first_tokens])

    def added(self) -> list[nn.Parameter]:
        return [self.prompt]

    def forward(self, input: Tensor) -> Tensor:
        """ids [..., tokens] int64 -> [..., tokens, hidden]."""
        is_token = input < FIRST_ID
        tokens = F.embedding(input.where(is_token, 0), self.weight)
        prompt = F.embedding((input - FIRST_ID).clamp(min=0), self.prompt).to(tokens.dtype)
        return tokens.where(is_token[..., None], prompt)


def add_prompt(embeddings: nn.Module, adapter: PromptTuning) -> None:
    """embeddings: the stage; the first table in it is that of the tokens."""
    for module in embeddings.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Embedding):
                setattr(module, name, PromptedEmbedding(child, adapter.length))
                return
    raise AssertionError("every backbone embeds tokens")


def prompted(token_ids: Tensor, batch: PackedBatch, length: int) -> tuple[Tensor, PackedBatch]:
    """Token ids, [tokens] int64, and their batch, with the ids of `length` trained vectors before each row."""
    longer = batch.lengthened(length)
    rows, prompt = batch.lengths.shape[0], torch.arange(length, device=token_ids.device)
    ids = token_ids.new_empty(token_ids.shape[0] + rows * length)
    ids = ids.index_copy(0, batch.places_behind(length), token_ids)
    return ids.index_copy(0, (longer.starts[:, None] + prompt).flatten(), (FIRST_ID + prompt).repeat(rows)), longer
