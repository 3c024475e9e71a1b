"""Rehearsals in a group of ranks on this machine, with the engines themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel

from harness.distributed.hosts import free_port
from harness.distributed.process_group import connect, disconnect, leave
from harness.measure.environment import threads_each
from harness.measure.memory import MemoryMeter, anonymous_bytes, give_back_memory, settle_memory
from harness.planning.plan import PlannedRun
from harness.planning.workspace import Workspace
from harness.prediction.work.passes import Kind
from harness.prediction.work.rehearsal import Stopwatch, Timing
from harness.prediction.work.walker import RunWalker, Texts

TIMEOUT_SECONDS = 600.0
TASKS, RESULT = "tasks.json", "seconds.json"


class Task(BaseModel):
    """A pass to rehearse, with so many blocks, above `done` stages of the prefix. key: of its result."""

    key: str
    planned: PlannedRun
    kind: Kind
    blocks: int
    done: int


class Tasks(BaseModel):
    """What one group does, and the folder of downloads."""

    cache: Path
    tasks: list[Task]


def rehearsed(size: int, given: Tasks) -> dict[str, float]:
    """What the tasks took, by their keys, seconds and bytes, and PROGRAM and START, in a group of `size` processes.

    Raises RuntimeError with how a process failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / TASKS).write_text(given.model_dump_json(), encoding="utf-8")
        port = free_port()
        ranks = [_started(rank, size, port, folder) for rank in range(size)]
        try:
            _wait(ranks, folder)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def _started(rank: int, size: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
    sizes = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    where = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in (sizes | where).items()}
    with _output(folder, rank).open("wb") as output:
        command = [sys.executable, "-m", "harness.prediction.work.group", str(folder)]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    """Until all have ended well, or one has not: the others would wait for it."""
    codes: list[int | None] = [None]
    while None in codes:
        time.sleep(0.05)
        codes = [rank.poll() for rank in ranks]
        failed = next((number for number, code in enumerate(codes) if code), None)
        if failed is not None:
            raise RuntimeError(f"rank {failed} of a rehearsal {_ending(codes[failed], _output(folder, failed))}")


def _ending(code: int | None, output: Path) -> str:
    """With the last line of the output, where an exception is."""
    if code and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"ended with exit code {code}: {lines[-1] if lines else 'no output'}"


def _output(folder: Path, rank: int) -> Path:
    return folder / f"output-{rank}.log"


# Under these: bytes that a rank held before the tasks, and the seconds in which it got its first engine.
PROGRAM, START = "program bytes", "engine start"


def timings(key: str, timing: Timing) -> dict[str, float]:
    """As it is kept between commands."""
    return {key: timing.seconds, f"{key} first": timing.first}


def of_bytes(key: str) -> str:
    """Under which the bytes of a task are kept: its peak, beyond what is left when its tensors are gone."""
    return f"{key} bytes"


def main(folder: Path) -> None:
    """One rank."""
    size = int(os.environ["WORLD_SIZE"])
    threads = threads_each(size)
    torch.set_num_threads(threads)
    settle_memory()
    world, tasks = connect(TIMEOUT_SECONDS), Tasks.model_validate_json((folder / TASKS).read_text(encoding="utf-8"))
    workspace = Workspace(tasks.cache)
    texts, seconds = Texts(workspace), {}
    for task in tasks.tasks:
        planned, strategy = task.planned, task.planned.strategy
        assert strategy is not None, "baselines are not rehearsed"
        workspace.use_folder(planned.model.name, planned.model.folder)
        classes = len(planned.dataset(workspace).source.classes)
        ranks = size * planned.config.engine.nodes
        walker = RunWalker(planned, strategy, texts.of(planned, strategy), classes, workspace, ranks, "cpu")
        meter = MemoryMeter(world.device)
        with meter.phase(task.kind):
            timing = walker.rehearse(task.kind, task.blocks, Stopwatch(threads, world), task.done)
        give_back_memory()
        left = anonymous_bytes()
        seconds |= timings(task.key, timing) | {of_bytes(task.key): float(meter.peaks[task.kind] - left)}
        if PROGRAM not in seconds:
            seconds |= {PROGRAM: float(left), START: timing.engine}
    if world.rank == 0:
        (folder / RESULT).write_text(json.dumps(seconds), encoding="utf-8")
    disconnect()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(0)
