"""A computation walked through on tensors that have shapes and no content: its operations and its memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from harness.config.schema import OptimizerConfig, RunConfig
from harness.distributed.process_group import World
from harness.model.split import Suffix
from harness.prediction.work.operations import Operation, operation_of
from harness.training.engines.ddp import DDPEngine
from harness.training.engines.optimizer import MOMENTS, adamw, trained_parameters
from harness.training.engines.protocol import Engine


@dataclass
class Walk:
    """operations: how often each is called, in parts where it was extrapolated. calls: of PyTorch in all, views
    included. peak_bytes: the most that tensors held at once which were made during the walk."""

    operations: Counter[Operation] = field(default_factory=Counter)
    calls: float = 0
    peak_bytes: float = 0

    def extended(self, longer: Walk, by: int) -> Walk:
        """As it would be with `by` of those steps more which `longer` has one more of."""
        operations: Counter[Operation] = Counter()
        for operation in {**self.operations, **longer.operations}:
            few, more = self.operations[operation], longer.operations[operation]
            operations[operation] = few + by * (more - few)
        return Walk(
            operations,
            self.calls + by * (longer.calls - self.calls),
            self.peak_bytes + by * (longer.peak_bytes - self.peak_bytes),
        )

    @property
    def flops(self) -> float:
        return sum(count * operation.flops for operation, count in self.operations.items())


class _Recorder(FakeTensorMode):
    """Sees every operation in which a tensor without content takes part."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False
        self.begin()

    def begin(self) -> None:
        self.walk = Walk()
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._held = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outermost, self._inside = not self._inside, True
        try:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._inside = not outermost
        # What an operation is made of is no call of its own.
        if not outermost or func is torch.ops.prim.device.default:
            return result
        self.walk.calls += 1
        operation = operation_of(func, args, kwargs, result, lambda tensor: isinstance(tensor, FakeTensor))
        if operation:
            self.walk.operations[operation] += 1
            self._hold(result)
        return result

    def _hold(self, result: Any) -> None:
        """Count the storages that `result` brings; those of earlier results may be gone."""
        for number, (storage, size) in list(self._live.items()):
            if storage.expired():
                del self._live[number]
                self._held -= size
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                    self._held += storage.nbytes()
        self.walk.peak_bytes = max(self.walk.peak_bytes, self._held)


class Shapes:
    """A rehearsal on tensors without content, which records what is computed with them. Indices and lengths stay real
    beside them, so that code which looks at those runs as it does in a run."""

    def __init__(self) -> None:
        self._recorder = _Recorder()

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        with self._recorder:
            return torch.empty(shape, dtype=dtype)

    def fill(self, module: nn.Module) -> None:
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    made = self.tensor(*parameter.shape, dtype=parameter.dtype)
                    part._parameters[name] = nn.Parameter(made, requires_grad=parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = self.tensor(*buffer.shape, dtype=buffer.dtype)

    def engine(self, suffix: Suffix, config: RunConfig) -> Engine:
        engine = _Engine(self, config)
        engine.prepare(suffix, config.optimizer)
        return engine

    def of(self, compute: Callable[[], Any]) -> Walk:
        self._recorder.begin()
        compute()
        return self._recorder.walk


class _Engine(DDPEngine):
    """Whose parameters and moments have no content."""

    def __init__(self, shapes: Shapes, config: RunConfig) -> None:
        super().__init__(World(0, 1, torch.device("cpu")), config.precision, fused=not config.plain)
        self._shapes = shapes

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        super().prepare(suffix, optimizer)
        self._shapes.fill(suffix)
        self._named = trained_parameters(suffix)
        self._optimizer = adamw(self._named, optimizer, self.fused, suffix.rate_factor)
        for parameter in self._named.values():  # as after a first step
            moments = {key: self._shapes.tensor(*parameter.shape, dtype=parameter.dtype) for key in MOMENTS}
            self._optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
