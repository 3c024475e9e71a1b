"""Training steps as captured graphs: the host launches one graph instead of hundreds of kernels.

A step runs as it is when a shape is met first, is captured when it is met again, and replayed from then on. What can't
be captured runs as it is, always, and `reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.training.micro_batch import MicroBatch

# Each graph keeps the tensors of one step, in a pool that all of them share.
LARGEST_NUMBER = 32

Body = Callable[[], Tensor]
Step = Callable[[Sequence[MicroBatch], int], Tensor]


class CUDAGraphs:
    """Captures with PyTorch's CUDA graphs, all in one memory pool."""

    def __init__(self) -> None:
        self._pool = None

    def __call__(self, body: Body) -> Body:
        """A function that does again what `body` did; its result is overwritten by the next call."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = body()
        self._pool = graph.pool()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@dataclass
class _Met:
    """inputs: on the device, where a captured step reads them. replay: None until it is captured."""

    inputs: list[MicroBatch]
    replay: Body | None = None


class CapturedSteps:
    """Calls `step` with micro-batches on the device, captured where that is possible.

    capture: makes of a function without arguments one that replays what it did on the device; None where steps can't be
    captured. reason: why they are not; None while they are.
    """

    def __init__(
        self, step: Step, device: torch.device, capture: Callable[[Body], Body] | None, reason: str | None = None
    ) -> None:
        self._step, self._device, self._capture, self.reason = step, device, capture, reason
        self._met: dict[object, _Met] = {}

    @property
    def captured(self) -> int:
        """How many shapes have a graph."""
        return sum(met.replay is not None for met in self._met.values())

    def __call__(self, micro_batches: Sequence[MicroBatch], global_count: int) -> Tensor:
        key = global_count, *(one.shape for one in micro_batches)
        met = self._met.get(key)
        if not self._capture or (met is None and len(self._met) == LARGEST_NUMBER):
            return self._step([one.to(self._device) for one in micro_batches], global_count)
        if met is None:
            met = self._met[key] = _Met([one.to(self._device) for one in micro_batches])
            return self._step(met.inputs, global_count)
        for static, given in zip(met.inputs, micro_batches, strict=True):
            static.copy_(given)
        if met.replay is None:
            try:
                met.replay = self._capture(lambda: self._step(met.inputs, global_count))
            except RuntimeError as problem:
                self._give_up(problem)
                return self._step(met.inputs, global_count)
        return met.replay().clone()

    def _give_up(self, problem: RuntimeError) -> None:
        self._capture, self.reason = None, f"capture failed: {str(problem).splitlines()[0]}"
        self._met.clear()
