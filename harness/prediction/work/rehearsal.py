"""Where a computation is tried out: on tensors without content (`walk.Shapes`), or for real and timed."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from harness.config.schema import RunConfig
from harness.distributed.process_group import World
from harness.measure.memory import is_out_of_memory
from harness.model.split import Part, Suffix
from harness.training.engines.factory import open_engine
from harness.training.engines.protocol import Engine

T_co = TypeVar("T_co", covariant=True)
# What tensors hold whose content does not matter: no number that slows a processor down.
SMALL = 0.01
# Of a rehearsal in seconds.
LONGEST_SECONDS, LEAST_CALLS, MOST_CALLS = 0.5, 4, 1000


class Rehearsal(Protocol[T_co]):
    """Where a computation is tried out: makes its tensors, and says what it takes."""

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor: ...

    def fill(self, module: nn.Module) -> None:
        """Give all parameters and buffers of `module`, which are on the CPU without content, such a tensor."""
        ...

    def engine(self, suffix: Suffix, config: RunConfig) -> Engine:
        """The engine, prepared, of a suffix without content."""
        ...

    def of(self, compute: Callable[[], Any]) -> T_co:
        """What `compute` takes."""
        ...


@dataclass(frozen=True)
class Timing:
    """Seconds. first: how much longer the first time takes, when memory is touched and kernels are chosen.
    engine: until the engine is prepared."""

    seconds: float
    first: float
    engine: float


class Stopwatch:
    """On real tensors, as one rank of `world` on so many threads: the mean of several times, since what holds up a step
    now and then holds up a run as often."""

    def __init__(self, threads: int, world: World) -> None:
        self._threads, self._world = threads, world
        self._engine_seconds = 0.0

    def tensor(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype).fill_(SMALL)

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(SMALL if tensor.is_floating_point() else 0)

    def engine(self, suffix: Suffix, config: RunConfig) -> Engine:
        self.fill(suffix)
        begun = time.perf_counter()
        engine = open_engine(config.engine, config.precision, self._world, fused=not config.plain)
        engine.prepare(suffix, config.optimizer)
        self._engine_seconds = time.perf_counter() - begun
        return engine

    def of(self, compute: Callable[[], Any]) -> Timing:
        with threads(self._threads):
            first, again = _timed(compute), _timed(compute)
            # All ranks do it equally often.
            count = int(min(self._world.gather(max(LEAST_CALLS, min(MOST_CALLS, LONGEST_SECONDS / again)))))
            seconds = statistics.fmean(_timed(compute) for _ in range(count))
        return Timing(seconds, max(0.0, first - seconds), self._engine_seconds)


def seconds_of(call: Callable[[], Any], longest: float) -> float:
    """The median of several calls, after one, for so many seconds or until there are MOST_CALLS."""
    call()
    taken: list[float] = []
    while len(taken) < LEAST_CALLS or (sum(taken) < longest and len(taken) < MOST_CALLS):
        taken.append(_timed(call))
    return statistics.median(taken)


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def allocate(part: Part) -> None:
    """Give a part memory without content. Untouched it takes none, but counts where that of a process is limited:
    there, parts that were tried before, and lie in cycles, make room."""
    try:
        part.to_empty(device="cpu")
    except RuntimeError as problem:
        if not is_out_of_memory(problem):
            raise
        gc.collect()
        part.to_empty(device="cpu")
