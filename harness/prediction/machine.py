"""How fast the machine at hand is: every operation that is asked for is timed once, at its own shapes, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from harness.config.schema import EngineConfig
from harness.distributed.process_group import single_process
from harness.files import write_atomically
from harness.measure.environment import cores, processor_name, threads_each
from harness.measure.memory import keep_freed_memory, memory_limit
from harness.planning.plan import PlannedRun
from harness.prediction.work.group import PROGRAM, START, Task, Tasks, of_bytes, rehearsed, timings
from harness.prediction.work.operations import OPTIMIZER, Operation, Shaped
from harness.prediction.work.passes import Pass, RunWork
from harness.prediction.work.rehearsal import SMALL, Stopwatch, seconds_of, threads
from harness.prediction.work.walk import Walk
from harness.prediction.work.walker import RunWalker

# Seconds that are spent on one operation, unless a few calls take longer.
LONGEST_SECONDS = 0.02
# What takes time in proportion to its size is timed on so many numbers, more than a cache holds.
TIMED_NUMBERS = 8_000_000
# Bytes that PyTorch's libraries take on a CPU for kernels that they compile and for scratch, once they are at work.
WORKSPACE = 35e6

# Of what is kept: 2 has the bytes of groups, 3 the threads of rehearsals.
FORMAT = 3

Runs = Sequence[tuple[PlannedRun, RunWork]]


@dataclass
class Machine:
    """Times are kept in `cache` between commands. program_bytes: what a process holds before a run."""

    cache: Path
    file: Path
    program_bytes: float
    known: dict[str, float] = field(default_factory=dict)

    kind = "cpu"

    @classmethod
    def at_hand(cls, cache: Path, program_bytes: float) -> Machine:
        """With what was measured before on the same processor, with as many cores and the same PyTorch."""
        about = f"{FORMAT} {processor_name()} {cores()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"
        file = cache / "calibration" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        keep_freed_memory()
        return cls(cache, file, program_bytes, known)

    @property
    def title(self) -> str:
        return f"this machine ({processor_name()}, {cores()} cores, PyTorch on {threads_each(1)})"

    @property
    def memory_bytes(self) -> float:
        return memory_limit()

    def keep(self) -> None:
        write_atomically(self.file, json.dumps(self.known, indent=0).encode())

    def has_timed(self, work: RunWork, engine: EngineConfig) -> bool:
        """Whether nothing of it is left to time or to rehearse."""
        threads = threads_each(engine.processes)
        walks = [walk for one in work.passes for walk in (one.walk, one.sample)]
        timed = {_signature(operation, threads) for walk in walks for operation in walk.operations}
        keys = {key for one in work.passes for key in self._rehearsals(one, work, engine)}
        return keys | timed <= self.known.keys()

    def rehearse(self, runs: Runs, walker_of: Callable[[PlannedRun], RunWalker]) -> None:
        """Do a part of each pass of these runs for real, where that was not done before.

        Operations take longer one after the other than alone; the interpreter takes its time between them, and an
        engine its own. How much longer all that takes is measured on this part.
        """
        by_size: dict[int, dict[str, Task]] = {}
        for planned, work in runs:
            engine = planned.config.engine
            for one in work.passes:
                for key, blocks in self._rehearsals(one, work, engine).items():
                    if key in self.known:
                        continue
                    if engine.processes == 1:
                        watch = Stopwatch(threads_each(1), single_process())
                        self.known |= timings(key, walker_of(planned).rehearse(one.kind, blocks, watch, one.done))
                    else:
                        task = Task(key=key, planned=planned, kind=one.kind, blocks=blocks, done=one.done)
                        by_size.setdefault(engine.processes, {})[key] = task
        for size, tasks in by_size.items():
            first, *_ = tasks.values()
            found = rehearsed(size, Tasks(cache=self.cache, tasks=[*tasks.values()]))
            of_engine = {f"{name} {_named(first.planned.config.engine)}": found.pop(name) for name in (PROGRAM, START)}
            self.known |= found | of_engine

    def _rehearsals(self, one: Pass, work: RunWork, engine: EngineConfig) -> dict[str, int]:
        """By key with how many blocks a pass is rehearsed: in a group a step with more, too, for its bytes."""
        key = self._key(one, engine)
        if engine.processes == 1 or one.kind != "step" or work.blocks <= one.blocks:
            return {key: one.blocks}
        return {key: one.blocks, self._key_of_more(work, engine): _more_blocks(work)}

    def _key_of_more(self, work: RunWork, engine: EngineConfig) -> str:
        return f"{self._key(work.step, engine)} with {_more_blocks(work)} blocks"

    def seconds(self, one: Pass, engine: EngineConfig) -> float:
        """Of all times that a pass is done, which was rehearsed. engine: of the run."""
        count, key = threads_each(engine.processes), self._key(one, engine)
        sample = self._operations(one.sample, count)
        longer = self._operations(one.walk, count) / sample if sample else 1.0
        return one.times * self.known[key] * longer + min(1.0, one.times) * self.known[f"{key} first"]

    def start_seconds(self, engine: EngineConfig) -> float:
        """Until a group of ranks has its first engine of a kind, what it imports included."""
        return self.known.get(f"{START} {_named(engine)}", 0.0)

    def _key(self, one: Pass, engine: EngineConfig) -> str:
        """Equal for passes that take equally long."""
        calls = sorted(f"{count:g} {operation.signature}" for operation, count in one.sample.operations.items())
        digest = hashlib.sha256(" ".join(calls).encode()).hexdigest()[:16]
        return f"{one.kind} {digest} {threads_each(engine.processes)} {_named(engine)}"

    def _operations(self, walk: Walk, count: int) -> float:
        with threads(count):
            return sum(times * self._of(operation, count) for operation, times in walk.operations.items())

    def _of(self, operation: Operation, threads: int) -> float:
        if operation.name == OPTIMIZER:
            return operation.updated * self._once(_signature(operation, threads), _optimizer_seconds)
        return self._once(_signature(operation, threads), lambda: timed(operation))

    @property
    def draw_seconds(self) -> float:
        """Of one random parameter."""
        return self._once(
            "draw", lambda: seconds_of(lambda: torch.empty(TIMED_NUMBERS).normal_(), LONGEST_SECONDS) / TIMED_NUMBERS
        )

    @property
    def copy_seconds(self) -> float:
        """Of one parameter that is read from a file in the system's cache."""
        numbers = torch.zeros(TIMED_NUMBERS)
        return self._once("copy", lambda: seconds_of(lambda: numbers.clone(), LONGEST_SECONDS) / TIMED_NUMBERS)

    @property
    def hash_seconds(self) -> float:
        """Of one byte, on one core."""
        content = bytes(TIMED_NUMBERS)
        return self._once(
            "hash", lambda: seconds_of(lambda: hashlib.sha256(content).digest(), LONGEST_SECONDS) / TIMED_NUMBERS
        )

    @property
    def write_seconds(self) -> float:
        """Of one byte of a file."""
        path, content = self.file.with_suffix(".written"), bytes(TIMED_NUMBERS)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._once(
                "write", lambda: seconds_of(lambda: path.write_bytes(content), LONGEST_SECONDS) / TIMED_NUMBERS
            )
        finally:
            path.unlink(missing_ok=True)

    def program_bytes_in(self, engine: EngineConfig) -> float:
        """What a rank holds before a run, and what its libraries take at work: in a group as much as in this process
        until one with this engine was rehearsed."""
        return WORKSPACE + self.known.get(f"{PROGRAM} {_named(engine)}", self.program_bytes)

    def training_bytes(self, work: RunWork, engine: EngineConfig) -> float | None:
        """What training held in a rank of a group, rehearsed with a part of the blocks and with more of them; None
        where no group has rehearsed it."""
        key, blocks = self._key(work.step, engine), work.step.blocks
        few = self.known.get(of_bytes(key))
        if few is None or work.blocks <= blocks:
            return few
        more, larger = self.known[of_bytes(self._key_of_more(work, engine))], _more_blocks(work)
        return few + (work.blocks - blocks) / (larger - blocks) * (more - few)

    def _once(self, key: str, measure: Callable[[], float]) -> float:
        if key not in self.known:
            self.known[key] = measure()
        return self.known[key]


def _more_blocks(work: RunWork) -> int:
    """With which a step is rehearsed once more, so that bytes can be extrapolated."""
    return min(2 * work.step.blocks, work.blocks)


def _named(engine: EngineConfig) -> str:
    """What of an engine its time depends on."""
    return json.dumps(engine.model_dump(exclude={"restarts", "timeout_seconds"}))


def _signature(operation: Operation, threads: int) -> str:
    """Equal for operations that are timed as one."""
    return f"optimizer {threads}" if operation.name == OPTIMIZER else f"{threads} {operation.signature}"


def timed(operation: Operation) -> float:
    """Seconds of one call."""
    call = operation.call
    assert call, f"{operation.signature} was read from a file: has_timed() tells whether its time is known"
    with torch.no_grad():
        args, kwargs = tree_map_only(Shaped, _content, call.arguments)
        return seconds_of(lambda: call.overload(*args, **kwargs), LONGEST_SECONDS)


def _content(shaped: Shaped) -> Tensor:
    made = torch.empty_strided(shaped.shape, shaped.stride, dtype=shaped.dtype)
    return made.fill_(SMALL if shaped.dtype.is_floating_point else 0)


def _optimizer_seconds() -> float:
    """Of a step of AdamW, for one parameter."""
    parameter = nn.Parameter(torch.full((TIMED_NUMBERS,), SMALL))
    parameter.grad = torch.full_like(parameter, SMALL)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    return seconds_of(optimizer.step, LONGEST_SECONDS) / TIMED_NUMBERS
