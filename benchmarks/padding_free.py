"""A classifier of `transformers` on batches without padding: rows one after the other, as FlashAttention takes them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DataCollatorWithFlattening


class Flatten:
    """Rows to one row: token ids and positions [1, tokens], where rows begin and end, and the labels [rows]."""

    def __init__(self) -> None:
        self._flatten = DataCollatorWithFlattening(return_flash_attn_kwargs=True)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._flatten([{"input_ids": row["input_ids"]} for row in rows], return_tensors="pt")
        batch["ends"] = batch["cu_seq_lens_q"][1:].long() - 1
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


class Flat(nn.Module):
    """A model for sequence classification, read at the last token of each row of a flat batch."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.score = classifier.base_model, classifier.score

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        ends: Tensor,
        labels: Tensor,
        cu_seq_lens_q: Tensor,
        cu_seq_lens_k: Tensor,
        max_length_q: int,
        max_length_k: int,
    ) -> dict[str, Tensor]:
        bounds = {"cu_seq_lens_q": cu_seq_lens_q, "cu_seq_lens_k": cu_seq_lens_k}
        longest = {"max_length_q": max_length_q, "max_length_k": max_length_k}
        states = self.backbone(input_ids=input_ids, position_ids=position_ids, use_cache=False, **bounds, **longest)
        logits = self.score(states.last_hidden_state[0].index_select(0, ends))
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}
