"""PyTorch's fully sharded data parallelism (FSDP2, Zhao et al., 2023, arXiv:2304.11277): every rank holds its shard of
the trained parameters, their gradients and their optimizer state.

A stage's parameters are gathered when it computes, in the forward and again in the backward pass; its gradients are
summed and sharded as soon as the backward pass has left it. Frozen parameters are held in full unless `shard_frozen`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from harness.config.schema import EngineConfig, OptimizerConfig, Precision
from harness.distributed.process_group import World
from harness.model.backbone import Stage
from harness.model.packing import PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Suffix
from harness.training.engines.optimizer import (
    adamw,
    load_whole_state,
    set_learning_rate,
    state_by_name,
    trained_parameters,
)
from harness.training.loss import loss_sum, part_of_step
from harness.training.micro_batch import MicroBatch

# As `fully_shard` cuts a parameter: its rows.
SHARDED = (Shard(0),)


class FSDPEngine:
    """Of a rank that a launcher has put in a group."""

    not_captured = "FSDP gathers parameters in hooks"
    graphs = 0

    def __init__(self, world: World, precision: Precision, config: EngineConfig, fused: bool) -> None:
        self.world = world
        self.precision: Precision = precision
        self.config = config
        self.fused = fused

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        # The logits of an adapted head are a view; nothing writes to them in place.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(FSDPInPrecision\) returned a view")
        self._mesh = init_device_mesh(self.world.device.type, (self.world.size,))
        self._suffix = InPrecision(suffix, self.precision, self.world.device)
        self._shard(suffix)
        self._named = trained_parameters(suffix)
        self._clip_norm = optimizer.clip_norm
        self._optimizer = adamw(self._named, optimizer, self.fused, suffix.rate_factor)

    def _shard(self, suffix: Suffix) -> None:
        """Embeddings and blocks are gathered one by one; head, norm and a learned readout, which are small, together.

        Parameters keep their types, and autocast chooses those of products: the arithmetic is that of other engines.
        """
        frozen = {parameter for parameter in suffix.parameters() if not parameter.requires_grad}
        replicated = set() if self.config.shard_frozen else frozen
        stages = [stage for stage in suffix.stages if isinstance(stage, Stage) and set(stage.parameters()) - replicated]
        for part in (*stages, self._suffix):
            sharded = fully_shard(part, mesh=self._mesh, reshard_after_forward=True, ignored_params=replicated)
            # Losses are divided by the global count: gradients are summed, not averaged.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def set_learning_rate(self, rate: float) -> None:
        set_learning_rate(self._optimizer, rate)

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        self._suffix.train()
        parts = []
        for micro_batch in micro_batches:  # each sums its gradients over the ranks: no rank has room for all of them
            micro_batch = micro_batch.to(self.world.device)
            logits = self._suffix(*micro_batch.inputs())
            loss = loss_sum(logits, micro_batch) / global_count
            loss.backward()
            parts.append(part_of_step(loss, logits, micro_batch, global_count))
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._named.values(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return torch.stack(parts).sum(dim=0)

    @torch.no_grad()
    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        self._suffix.eval()
        return self._suffix(features, batch)

    def values(self) -> dict[str, Tensor]:
        return self._gathered(self._named)

    def set_values(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=self.world.device)
            if self.world.rank == 0:
                value.copy_(values[name])
            parameter.data.copy_(distribute_tensor(value, self._mesh, SHARDED))

    def save(self) -> dict[str, Tensor]:
        return self._gathered(state_by_name(self._named, self._optimizer))

    def load(self, state: dict[str, Tensor], warm_up: Sequence[MicroBatch]) -> None:
        shards = {
            # Every rank has read all of it: none has to send.
            key: distribute_tensor(value, self._mesh, SHARDED, src_data_rank=None) if value.ndim else value
            for key, value in state.items()
        }
        load_whole_state(self._named, self._optimizer, shards)

    @torch.no_grad()
    def _gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Complete, on the CPU of the first rank; one after the other, as the others have no room for all."""
        gathered = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.world.rank == 0:
                gathered[name] = full.cpu().clone()
        return gathered

    def close(self) -> None:
        del self._suffix, self._optimizer, self._named
