"""Pretrain `mini` as a language model on the synthetic generator's texts, without their labels.

    python tools/pretrain_mini.py

Writes `harness/assets/mini.safetensors` in the published layout, float16; the same bytes each time on one machine: one
thread, seeded texts, and the initial weights that `WEIGHTS=random` has by default.

A row is one message, as a classifier sees it: nothing stands before its first token, and behind its last one the model
expects end-of-text. The texts come from another seed than any data set's, and each is seen once.
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

from harness.config import ModelConfig
from harness.data.synthetic import STREAM_SEED, generate
from harness.data.tokenizer import load_tokenizer
from harness.model.gpt2 import GPT2, Rows
from harness.model.weights import MINI_CHECKPOINT, filled_backbone, published_tensors, weights_of

HELD_OUT_SEED = STREAM_SEED + 1
STEPS = 1000
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
EVALUATE_EVERY_STEPS = 250


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
    for step, messages in enumerate(messages_in_batches(steps * BATCH_SIZE, STREAM_SEED), start=1):
        optimizer.zero_grad()
        summed, tokens = nats(backbone, messages)
        (summed / tokens).backward()
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % EVALUATE_EVERY_STEPS == 0 or step == steps:
            print(f"step {step:>5}: {nats_per_message(backbone, 1000):.3f} nats a message", flush=True)
    return backbone


@torch.no_grad()
def nats_per_message(backbone: GPT2, count: int) -> float:
    """The mean cross-entropy of messages that were not trained on, each without its first token."""
    return sum(nats(backbone, messages)[0].item() for messages in messages_in_batches(count, HELD_OUT_SEED)) / count


def nats(backbone: GPT2, messages: list[list[int]]) -> tuple[Tensor, int]:
    """The summed cross-entropy of the tokens behind each message's first, end-of-text included, and their number."""
    end_of_text = backbone.shape.vocabulary - 1
    rows = Rows.packed(np.array([len(message) for message in messages]))
    token_ids = torch.tensor(list(chain(*messages)))
    expected = torch.tensor([token for message in messages for token in (*message[1:], end_of_text)])
    hidden = backbone(rows.fill(token_ids), rows)[: len(expected)]
    return F.cross_entropy(backbone.next_token_logits(hidden), expected, reduction="sum"), len(expected)


def messages_in_batches(count: int, seed: int) -> Iterator[list[list[int]]]:
    """`count` messages as token ids, BATCH_SIZE at a time."""
    tokenizer = load_tokenizer("mini", Path(), None)
    messages = generate(count, seed)
    for start in range(0, count, BATCH_SIZE):
        yield tokenizer.encode_ordinary_batch([message.text for message in messages[start : start + BATCH_SIZE]])


def _share_of_rate(step: int, steps: int) -> float:
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm_up * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)


if __name__ == "__main__":
    main()
