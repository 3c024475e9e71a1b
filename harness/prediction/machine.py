"""How fast the machine at hand is: every operation that is asked for is timed once, at its own shapes, and kept."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from harness.files import write_atomically
from harness.measure.environment import cores, processor_name
from harness.measure.memory import keep_freed_memory, memory_limit
from harness.prediction.exchange import GroupRates, measured_group
from harness.prediction.operations import OPTIMIZER, Operation, Shaped
from harness.prediction.walk import Shapes, Walk

# Seconds that are spent on one operation at most, unless a single call takes longer, and calls.
LONGEST_SECONDS, MOST_CALLS, LEAST_CALLS = 0.02, 50, 3
# What takes time in proportion to its size is timed on so many numbers, more than a cache holds.
TIMED_NUMBERS = 8_000_000


@dataclass
class Machine:
    """Times are kept in `file` between commands. program_bytes: what a process holds before a run."""

    file: Path
    program_bytes: float
    known: dict[str, float] = field(default_factory=dict)

    kind = "cpu"

    @classmethod
    def at_hand(cls, cache: Path, program_bytes: float) -> Machine:
        """With what was measured before on the same processor, with as many cores and the same PyTorch."""
        about = f"{processor_name()} {cores()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
        file = cache / "calibration" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        keep_freed_memory()
        return cls(file, program_bytes, known)

    @property
    def title(self) -> str:
        return f"this machine ({processor_name()}, {cores()} cores)"

    @property
    def memory_bytes(self) -> float:
        return memory_limit()

    def keep(self) -> None:
        write_atomically(self.file, json.dumps(self.known, indent=0).encode())

    def seconds(self, walk: Walk, threads: int, captured: bool = False) -> float:
        """threads: of the rank that computes it."""
        with _threads(threads):
            timed = sum(count * self._of(operation, threads) for operation, count in walk.operations.items())
            return timed + walk.calls * self._once(f"host {threads}", self._host)

    def _of(self, operation: Operation, threads: int) -> float:
        if operation.name == OPTIMIZER:
            parameters = sum(one.bytes // one.dtype.itemsize for one in operation.parameters)
            return parameters * self._once(f"optimizer {threads}", _optimizer_seconds)
        return self._once(f"{threads} {operation.signature}", lambda: timed(operation))

    @property
    def draw_seconds(self) -> float:
        """Of one random parameter."""
        return self._once("draw", lambda: _seconds_of(lambda: torch.empty(TIMED_NUMBERS).normal_()) / TIMED_NUMBERS)

    @property
    def copy_seconds(self) -> float:
        """Of one parameter that is read from a file in the system's cache."""
        numbers = torch.zeros(TIMED_NUMBERS)
        return self._once("copy", lambda: _seconds_of(lambda: numbers.clone()) / TIMED_NUMBERS)

    @property
    def hash_seconds(self) -> float:
        """Of one byte, on one core."""
        content = bytes(TIMED_NUMBERS)
        return self._once("hash", lambda: _seconds_of(lambda: hashlib.sha256(content).digest()) / TIMED_NUMBERS)

    @property
    def write_seconds(self) -> float:
        """Of one byte of a file."""
        path, content = self.file.with_suffix(".written"), bytes(TIMED_NUMBERS)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._once("write", lambda: _seconds_of(lambda: path.write_bytes(content)) / TIMED_NUMBERS)
        finally:
            path.unlink(missing_ok=True)

    def group(self, size: int) -> GroupRates:
        """Of `size` ranks on this machine, which starts them where they were not measured before."""
        names = GroupRates.model_fields
        if f"group {size} slowdown" not in self.known:
            rates = measured_group(size, max(1, cores() // size))
            self.known |= {f"group {size} {name}": getattr(rates, name) for name in names}
        return GroupRates(**{name: self.known[f"group {size} {name}"] for name in names})

    def _host(self) -> float:
        """Of the interpreter for each call of PyTorch in a training step, beside the operation itself: from a network
        too small to take time."""
        shapes, real = Shapes(), _small_step(lambda module: module)
        walked = shapes.walk(_small_step(shapes.fill))
        for _ in range(20):
            real()
        taken = _seconds_of(real)
        alone = sum(count * timed(operation) for operation, count in walked.operations.items() if count)
        return max(0.0, taken - alone) / walked.calls

    def _once(self, key: str, measure: Callable[[], float]) -> float:
        if key not in self.known:
            self.known[key] = measure()
        return self.known[key]


def timed(operation: Operation) -> float:
    """Seconds of one call."""
    with torch.no_grad():
        args, kwargs = tree_map_only(Shaped, _content, operation.arguments)
        return _seconds_of(lambda: operation.overload(*args, **kwargs))


def _content(shaped: Shaped) -> Tensor:
    made = torch.empty_strided(shaped.shape, shaped.stride, dtype=shaped.dtype)
    return made.fill_(0.01 if shaped.dtype.is_floating_point else 0)


def _seconds_of(call: Callable[[], Any]) -> float:
    """The median of several calls, after one."""
    call()
    taken: list[float] = []
    while len(taken) < LEAST_CALLS or (sum(taken) < LONGEST_SECONDS and len(taken) < MOST_CALLS):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
        if taken[0] > LONGEST_SECONDS:
            break
    return statistics.median(taken)


def _optimizer_seconds() -> float:
    """Of a step of AdamW, for one parameter."""
    parameter = nn.Parameter(torch.full((TIMED_NUMBERS,), 0.01))
    parameter.grad = torch.full_like(parameter, 0.001)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    return _seconds_of(optimizer.step) / TIMED_NUMBERS


def _small_step(prepare: Callable[[nn.Module], Any]) -> Callable[[], None]:
    """Forward and backward passes of a network of the kind of operations that a block has."""
    layers = [(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU("tanh")) for _ in range(8)]
    network = nn.Sequential(*(layer for three in layers for layer in three))
    prepare(network)

    def step() -> None:
        network(torch.ones(4, 8)).sum().backward()
        for parameter in network.parameters():
            parameter.grad = None

    return step


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
