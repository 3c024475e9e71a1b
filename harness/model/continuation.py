"""Greedy continuation: shows whether a model is the pretrained one."""

from __future__ import annotations

import torch

from harness.model.gpt2 import GPT2, Rows

PROMPT = "Every effort moves you"
EXPECTED = " forward.\n\nThe first step is to understand the importance of your work"


@torch.no_grad()
def continue_greedily(model: GPT2, token_ids: list[int], count: int) -> list[int]:
    """The `count` most likely next token ids, one after the other."""
    ids = torch.tensor([token_ids])
    for _ in range(count):
        seen = ids[:, -model.shape.context :]
        hidden = model(seen, Rows(torch.tensor([seen.shape[1]])))
        ids = torch.cat([ids, model.next_token_logits(hidden[:, -1]).argmax(-1, keepdim=True)], dim=1)
    return ids[0, len(token_ids) :].tolist()
