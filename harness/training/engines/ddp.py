"""Every rank holds the full suffix; gradients are averaged by DistributedDataParallel (torchrun)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.config.schema import OptimizerConfig, Precision
from harness.distributed.process_group import World
from harness.model.packing import PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Suffix
from harness.training.engines.captured import CapturedSteps, CUDAGraphs
from harness.training.engines.optimizer import (
    adamw,
    copied,
    hold_rate_in_tensor,
    load_whole_state,
    set_learning_rate,
    trained_parameters,
    whole_state,
)
from harness.training.loss import loss_sum, part_of_step
from harness.training.micro_batch import MicroBatch


def not_capturable(device: str, ranks: int, recomputes_blocks: bool, fused: bool) -> str | None:
    """Why steps can't be captured as graphs; None where they can. device: its type. fused: AdamW as one kernel."""
    if device != "cuda":
        return "a CPU has no graphs"
    if ranks > 1:
        return "several ranks"
    if recomputes_blocks:
        return "gradient checkpointing"
    return None if fused else "the plain path"


class DDPEngine:
    def __init__(self, world: World, precision: Precision, fused: bool) -> None:
        self.world = world
        self.precision: Precision = precision
        self.fused = fused

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        self._suffix: InPrecision | DistributedDataParallel = InPrecision(suffix, self.precision, self.world.device)
        if self.world.size > 1:
            device_ids = [self.world.device.index] if self.world.device.type == "cuda" else None
            self._suffix = DistributedDataParallel(self._suffix, device_ids=device_ids, gradient_as_bucket_view=True)
        self._named = trained_parameters(suffix)
        self._clip_norm = optimizer.clip_norm
        self._optimizer = adamw(self._named, optimizer, self.fused, suffix.rate_factor)
        reason = not_capturable(self.world.device.type, self.world.size, suffix.recomputes_blocks, self.fused)
        if not reason and (optimizer.schedule != "constant" or optimizer.warmup):
            hold_rate_in_tensor(self._optimizer, self.world.device)
        self._steps = CapturedSteps(self._step, self.world.device, None if reason else CUDAGraphs(), reason)

    @property
    def not_captured(self) -> str | None:
        return self._steps.reason

    @property
    def graphs(self) -> int:
        return self._steps.captured

    def set_learning_rate(self, rate: float) -> None:
        set_learning_rate(self._optimizer, rate)

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        self._suffix.train()
        return self._steps(micro_batches, global_count)

    def _step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        try:
            return self._forward_backward_update(micro_batches, global_count)
        finally:  # also where a capture fails half way
            self._optimizer.zero_grad(set_to_none=True)

    def _forward_backward_update(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        """The micro-batches are on the device. It reads nothing back, so that it can be captured."""
        parts = []
        for number, micro_batch in enumerate(micro_batches, start=1):
            with self._no_exchange() if number < len(micro_batches) else nullcontext():
                logits = self._suffix(*micro_batch.inputs())
                loss = loss_sum(logits, micro_batch) / global_count
                (loss * self.world.size).backward()  # the wrapper divides the sum over ranks by their number
            parts.append(part_of_step(loss, logits, micro_batch, global_count))
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._named.values(), self._clip_norm)
        self._optimizer.step()
        return torch.stack(parts).sum(dim=0)

    def _no_exchange(self) -> AbstractContextManager[None]:
        """Gradients are summed over ranks with the last micro-batch of a step only."""
        return self._suffix.no_sync() if isinstance(self._suffix, DistributedDataParallel) else nullcontext()

    @torch.no_grad()
    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        self._suffix.eval()
        return self._suffix(features, batch)

    def values(self) -> dict[str, Tensor]:
        return {} if self.world.rank else copied(self._named)

    def set_values(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            if self.world.rank == 0:
                parameter.data.copy_(values[name])
            self.world.broadcast(parameter.data)

    def save(self) -> dict[str, Tensor]:
        return {} if self.world.rank else whole_state(self._named, self._optimizer)

    def load(self, state: dict[str, Tensor], warm_up: Sequence[MicroBatch]) -> None:
        load_whole_state(self._named, self._optimizer, state)

    def close(self) -> None:
        del self._steps, self._suffix, self._optimizer, self._named
