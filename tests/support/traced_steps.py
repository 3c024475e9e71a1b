"""What a training step dispatches, without running it: on fake tensors, which have shapes and no content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.config.schema import OptimizerConfig, Precision
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.model.hub.backbone import HubBlock
from harness.model.packing import BatchShape
from harness.model.split import Part, Prefix, Suffix
from harness.training.engines.ddp import DDPEngine
from harness.training.engines.optimizer import trained_parameters
from harness.training.micro_batch import MicroBatch

LENGTHS = np.array([5, 60, 30, 20, 30, 40, 1, 10])
SHAPE = BatchShape(rows=8, tokens=256, width=64, filler_rows=1)
# What makes no kernel: views, memory without content, questions.
_FREE = {
    "view", "t", "transpose", "slice", "select", "expand", "unsqueeze", "squeeze", "permute", "detach", "alias",
    "as_strided", "_unsafe_view", "split", "unbind", "_reshape_alias", "lift_fresh", "empty", "empty_like", "device",
    "empty_strided", "new_empty", "new_empty_strided", "_record_function_enter_new", "_record_function_exit", "size",
}  # fmt: skip


class NoHostCopies(TorchFunctionMode):
    """Fails on a copy to the host; on fake tensors, which are all on one device, it would do nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (Tensor.cpu, Tensor.numpy, Tensor.pin_memory), f"{func} in a step"
        return func(*args, **(kwargs or {}))


class Recorder(TorchDispatchMode):
    """Collects the names of operations that make kernels. What reads a value back, or whose shape depends on content,
    fails by itself on fake tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        if name not in _FREE:
            self.operations.append(name)
        return func(*args, **(kwargs or {}))


def operations_of_step(
    prefix: Prefix,
    suffix: Suffix,
    precision: Precision,
    optimize: Callable[[Part], None] = lambda part: None,
    clip_norm: float | None = None,
) -> list[str]:
    """Of the second step of an engine with one rank: gather, forward, loss, backward, clipping, update.

    optimize: puts kernels in. The prefix runs in each step where it hands over one vector of each row; else the suffix
    is fed with stored features, or with token ids where the prefix is empty.
    """
    mode = FakeTensorMode()
    prefix.place(torch.device("cpu"), precision)
    engine = DDPEngine(World(0, 1, torch.device("cpu")), precision, fused=True)
    engine.prepare(suffix, OptimizerConfig(learning_rate=1e-3, clip_norm=clip_norm))
    for part in (prefix, suffix):
        optimize(part)
        _make_fake(part, mode)
    engine._named = trained_parameters(suffix)
    engine._optimizer.param_groups[0]["params"] = list(engine._named.values())
    starts, dtype = np.cumsum(LENGTHS) - LENGTHS, torch.float64 if precision == "fp64" else torch.float32
    stored = bool(prefix.stages) and not prefix.facts.reads
    flat = torch.zeros(256, suffix.width, dtype=dtype) if stored else torch.zeros(256, dtype=torch.int64)
    features = Features(mode.from_tensor(flat), starts, LENGTHS, torch.device("cpu"), None if stored else prefix)
    batch = MicroBatch.of(features, np.arange(8), np.zeros(8, dtype=np.int64), counts=True, shape=SHAPE)
    batch = MicroBatch(features, batch.shape, mode.from_tensor(batch.buffer), None)
    with mode:
        engine.step([batch], 8)
        with NoHostCopies(), Recorder() as recorder:
            engine.step([batch], 8)
    return recorder.operations


def _make_fake(part: nn.Module, mode: FakeTensorMode) -> None:
    rotary = {module.rotary for module in part.modules() if isinstance(module, HubBlock) and module.rotary}
    for module in [*part.modules(), *(table for one in rotary for table in one._make.modules())]:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake: Tensor = mode.from_tensor(parameter.data)
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else mode.from_tensor(buffer)
