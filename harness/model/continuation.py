"""Greedy continuation: shows whether a model is the pretrained one."""

from __future__ import annotations

import numpy as np
import torch

from harness.model.gpt2 import GPT2, Rows

PROMPT = "Every effort moves you"
EXPECTED = " forward.\n\nThe first step is to understand the importance of your work"


@torch.no_grad()
def continue_greedily(model: GPT2, token_ids: list[int], count: int) -> list[int]:
    """The `count` most likely next token ids, one after the other."""
    ids = list(token_ids)
    for _ in range(count):
        seen = ids[-model.shape.context :]
        rows = Rows.padded(np.array([len(seen)]), len(seen))
        hidden = model(torch.tensor(seen), rows)
        ids.append(int(model.next_token_logits(hidden[-1]).argmax()))
    return ids[len(token_ids) :]
