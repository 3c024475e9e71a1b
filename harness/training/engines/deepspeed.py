"""DeepSpeed's ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054): ranks share optimizer state (stage 1), gradients
(2) and parameters (3) instead of each holding all; stage 0 shares nothing.

Frozen parameters are not given to the optimizer: they take no part in gradient traffic.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore

from harness.config.schema import EngineConfig, OptimizerConfig, Precision
from harness.distributed.process_group import World
from harness.model.packing import PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Suffix
from harness.training.engines.optimizer import (
    MOMENTS,
    adamw,
    copied,
    load_whole_state,
    set_learning_rate,
    trained_parameters,
    whole_state,
)
from harness.training.loss import loss_sum, part_of_step
from harness.training.micro_batch import MicroBatch

# DeepSpeed's own bucket of half a billion elements would hold several copies of a model of this size.
LARGEST_BUCKET = 50_000_000


class DeepSpeedEngine:
    not_captured = "DeepSpeed reads values back in its steps"
    graphs = 0

    def __init__(self, world: World, precision: Precision, config: EngineConfig, fused: bool) -> None:
        self.world = world
        self.precision: Precision = precision
        self.config = config
        self.fused = fused

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        deepspeed = _deepspeed(self.world)
        module = InPrecision(suffix, self.precision, self.world.device)
        self._named = trained_parameters(suffix)
        trained = list(self._named.values())
        elements = sum(parameter.numel() for parameter in trained)
        self._engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=adamw(self._named, optimizer, self.fused, suffix.rate_factor),
            model_parameters=trained,
            config=self._settings(elements, optimizer.clip_norm),
            dist_init_required=False,
        )

    def set_learning_rate(self, rate: float) -> None:
        set_learning_rate(self._engine.basic_optimizer, rate)

    def step(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        self._engine.train()
        parts = []
        for micro_batch in micro_batches:
            micro_batch = micro_batch.to(self.world.device)
            logits = self._engine(*micro_batch.inputs())
            loss = loss_sum(logits, micro_batch) / global_count
            # The engine divides the sum over ranks by their number.
            self._engine.backward(loss * self.world.size, scale_wrt_gas=False)
            parts.append(part_of_step(loss, logits, micro_batch, global_count))
        self._engine.step()
        return torch.stack(parts).sum(dim=0)

    @torch.no_grad()
    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        self._engine.eval()
        return self._engine(features, batch)

    def values(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        if not self.config.zero_stage:
            return {} if self.world.rank else copied(self._named)
        values = {}
        for name, parameter in self._named.items():  # one after the other: no rank has room for all of them
            full = safe_get_full_fp32_param(parameter)
            if self.world.rank == 0:
                assert full is not None, "every trained parameter has a float32 value"
                values[name] = full.detach().cpu().clone()
        return values

    def set_values(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            full_shape = getattr(parameter, "ds_shape", parameter.shape)
            value = torch.empty(full_shape, dtype=parameter.dtype, device=self.world.device)
            if self.world.rank == 0:
                value.copy_(values[name])
            self.world.broadcast(value)
            self._set_value(parameter, value)

    def save(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self.config.zero_stage:
            return {} if self.world.rank else whole_state(self._named, self._engine.basic_optimizer)
        self._link_state()
        state = {"optimizer_steps": torch.tensor(float(self._steps()[0]))}
        state |= {f"value/{name}": value for name, value in self.values().items()}
        for name, parameter in self._named.items():
            for key in MOMENTS:
                full = safe_get_full_optimizer_state(parameter, key)
                if self.world.rank == 0:
                    assert full is not None, "a checkpoint is written after a step, which makes the moments"
                    state[f"{key}/{name}"] = full.detach().cpu().clone()
        return state

    def load(self, state: dict[str, Tensor], warm_up: Sequence[MicroBatch]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        if not self.config.zero_stage:
            load_whole_state(self._named, self._engine.basic_optimizer, state)
            return
        self._make_state(warm_up)
        self._link_state()
        for name, parameter in self._named.items():
            self._set_value(parameter, state[f"value/{name}"].to(self.world.device))
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{key}/{name}"].to(self.world.device), key)
        for step in self._steps():
            step.fill_(state["optimizer_steps"])

    def _set_value(self, parameter: nn.Parameter, value: Tensor) -> None:
        """value: complete, on every rank."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)
        if self.config.zero_stage:
            safe_set_full_fp32_param(parameter, value)

    def _make_state(self, warm_up: Sequence[MicroBatch]) -> None:
        """ZeRO's parts of the optimizer state come to be in the first step: do one that changes nothing."""
        group = self._engine.basic_optimizer.param_groups[0]
        rate = float(group["lr"]) / group["rate_factor"]
        self.set_learning_rate(0.0)
        self.step(warm_up, global_count=1)
        self.set_learning_rate(rate)

    def _link_state(self) -> None:
        """ZeRO 1 and 2 link parameters to their moments once, after the first group of the first step, when the
        parameters of all other groups have none yet."""
        if self.config.zero_stage in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _steps(self) -> list[Tensor]:
        """The optimizer's counters of steps, one for each of the parts that this rank holds."""
        return [state["step"] for state in self._engine.basic_optimizer.state.values() if "step" in state]

    def close(self) -> None:
        self._engine.destroy()
        del self._engine, self._named

    def _settings(self, elements: int, clip_norm: float | None) -> dict[str, Any]:
        bucket = min(elements, LARGEST_BUCKET)
        zero: dict[str, Any] = {
            "stage": self.config.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
        }
        if self.config.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu"}
        return {
            # Nominal: batches say their own size, and a step ends where `step` is called.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": clip_norm or 0.0,
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,
        }


def _deepspeed(world: World) -> Any:
    """The package, quiet and joined to the group; it takes a while to import, so only where it is used."""
    os.environ.setdefault("DS_ACCELERATOR", world.device.type)
    os.environ["LOCAL_RANK"] = str(world.local_rank)
    # Its calls of torch.distributed warn once a step.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Collectives of its own for a CPU, which nothing here calls, would be compiled first: that takes a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():  # one process that no launcher started
        backend = "nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    return deepspeed
