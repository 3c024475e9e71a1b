"""Every rank holds the whole suffix; gradients are averaged by DistributedDataParallel (torchrun)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.config import OptimizerConfig, Precision
from harness.engine.precision import compute_context, parameter_dtype, store_frozen
from harness.engine.protocol import MicroBatch
from harness.engine.world import World
from harness.model.gpt2 import Rows
from harness.model.split import Suffix


class DDPEngine:
    def __init__(self, world: World, precision: Precision, fused: bool) -> None:
        self.world = world
        self.precision: Precision = precision
        self.fused = fused

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        suffix.to(self.world.device, parameter_dtype(self.precision))
        store_frozen(suffix, self.precision)
        self._suffix: nn.Module = suffix
        if self.world.size > 1:
            device_ids = [self.world.device.index] if self.world.device.type == "cuda" else None
            self._suffix = DistributedDataParallel(suffix, device_ids=device_ids, gradient_as_bucket_view=True)
        self._trained = [parameter for parameter in suffix.parameters() if parameter.requires_grad]
        self._clip_norm = optimizer.clip_norm
        self._optimizer = torch.optim.AdamW(
            self._trained,
            lr=optimizer.learning_rate,
            weight_decay=optimizer.weight_decay,
            fused=self.fused or None,
        )

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        self._suffix.train()
        losses = []
        for number, micro_batch in enumerate(micro_batches, start=1):
            exchange = number == len(micro_batches)
            postponed = nullcontext() if exchange or self.world.size == 1 else self._suffix.no_sync()
            with postponed:
                loss = self._loss(micro_batch) / global_count
                (loss * self.world.size).backward()  # the wrapper divides the sum over ranks by their number
            losses.append(loss.detach())
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return torch.stack(losses).sum()

    @torch.no_grad()
    def logits(self, features: Tensor, rows: Rows) -> Tensor:
        self._suffix.eval()
        return self._forward(features, rows)

    def close(self) -> None:
        del self._suffix, self._optimizer, self._trained

    def _forward(self, features: Tensor, rows: Rows) -> Tensor:
        with compute_context(self.precision, self.world.device):
            return self._suffix(features, rows)

    def _loss(self, micro_batch: MicroBatch) -> Tensor:
        logits = self._forward(micro_batch.features, micro_batch.rows)
        per_row = F.cross_entropy(logits, micro_batch.labels, reduction="none")
        return (per_row * micro_batch.weights).sum()
