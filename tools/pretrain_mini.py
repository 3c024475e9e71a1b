"""Pretrain `mini` as a language model on the synthetic generator's texts, without their labels.

    python tools/pretrain_mini.py

Writes `harness/assets/mini.safetensors` in the published layout, float16; the same bytes each time on one machine: one
thread, seeded texts, and the initial weights that `WEIGHTS=random` has by default.

A row is one conversation: a message as a classifier sees it, with nothing before its first token, then the answer to
it if there is one, and end-of-text. The answer follows at once, so that the message's last token has to predict it: its
first words lean towards the message's true class. Labels are never shown, and data sets hold no answers. The texts come
from another seed than any data set's, and each is seen once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from harness.config.schema import ModelConfig
from harness.data.tasks.word_order import STREAM_SEED, conversations
from harness.data.tokenizer import load_tokenizer
from harness.model.gpt2 import GPT2
from harness.model.named.weights import MINI_CHECKPOINT, filled_backbone, published_tensors, weights_of
from harness.model.packing import PackedBatch

HELD_OUT_SEED = STREAM_SEED + 1
STEPS = 1000
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
EVALUATE_EVERY_STEPS = 250
HELD_OUT = 1000


def main() -> None:
    torch.set_num_threads(1)
    backbone = pretrain(STEPS)
    tensors = {key: tensor.half() for key, tensor in published_tensors(backbone).items()}
    save_file(tensors, MINI_CHECKPOINT, metadata={"format": "pt"})
    print(f"{MINI_CHECKPOINT}: {MINI_CHECKPOINT.stat().st_size:,} bytes")


def pretrain(steps: int) -> GPT2:
    """AdamW with the usual settings for a GPT: decay of matrices only, clipping, a warm-up and a cosine."""
    backbone = filled_backbone("mini", weights_of(ModelConfig(name="mini"), None))
    matrices = [parameter for parameter in backbone.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in backbone.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_rate(step, steps))
    for step, batch in enumerate(conversations_in_batches(steps * BATCH_SIZE, STREAM_SEED), start=1):
        optimizer.zero_grad()
        summed, tokens = nats(backbone, batch)
        (summed / tokens).backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % EVALUATE_EVERY_STEPS == 0 or step == steps:
            print(f"step {step:>5}: {nats_per_conversation(backbone, HELD_OUT):.3f} nats a conversation", flush=True)
    return backbone


@torch.no_grad()
def nats_per_conversation(backbone: GPT2, count: int) -> float:
    """The mean cross-entropy of conversations that were not trained on, each without its first token."""
    return sum(nats(backbone, batch)[0].item() for batch in conversations_in_batches(count, HELD_OUT_SEED)) / count


def nats(backbone: GPT2, conversations: list[list[int]]) -> tuple[Tensor, int]:
    """The summed cross-entropy of the tokens behind each row's first, end-of-text included, and their number."""
    end_of_text = backbone.shape.vocabulary - 1
    rows = PackedBatch.packed(np.array([len(row) for row in conversations]))
    token_ids = torch.tensor(list(chain(*conversations)))
    expected = torch.tensor([token for row in conversations for token in (*row[1:], end_of_text)])
    hidden = backbone(rows.pack(token_ids), rows)[: len(expected)]
    return F.cross_entropy(backbone.next_token_logits(hidden), expected, reduction="sum"), len(expected)


def conversations_in_batches(count: int, seed: int) -> Iterator[list[list[int]]]:
    """`count` conversations as token ids, BATCH_SIZE at a time; the message's are those of the message alone."""
    encode = load_tokenizer("mini", Path(), None).encode_ordinary
    drawn = conversations(count, seed)
    for start in range(0, count, BATCH_SIZE):
        yield [encode(message) + encode(answer) for message, answer in drawn[start : start + BATCH_SIZE]]


def _share_of_rate(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm_up * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


if __name__ == "__main__":
    main()
