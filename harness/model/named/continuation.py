"""Greedy continuation: shows whether a model is a pretrained one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.model.backbone import Backbone
from harness.model.packing import PackedBatch


@dataclass(frozen=True)
class Proof:
    """How the pretrained model that is called `model` continues `prompt`."""

    model: str
    prompt: str
    expected: str


GPT2_PROOF = Proof(
    "124M model",
    "Every effort moves you",
    " forward.\n\nThe first step is to understand the importance of your work",
)
# The text asks to give; what comes next is to get something. Which thing is a guess, so the proof ends before it.
MINI_PROOF = Proof("mini", "hi. please send the fee. no rush at all. then", " take home the")


@torch.no_grad()
def continue_greedily(model: Backbone, token_ids: list[int], count: int) -> list[int]:
    """The `count` most likely next token ids, one after the other."""
    ids = list(token_ids)
    for _ in range(count):
        seen = ids[-model.context :]
        hidden = model(torch.tensor(seen), PackedBatch.padded(np.array([len(seen)]), len(seen)))
        ids.append(int(model.next_token_logits(hidden[-1]).argmax()))
    return ids[len(token_ids) :]
