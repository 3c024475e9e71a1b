"""Rehearsals in a group of ranks on this machine, with the engines themselves."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from pydantic import BaseModel
from torch.multiprocessing.spawn import spawn

from harness.distributed.hosts import free_port
from harness.distributed.process_group import connect, disconnect
from harness.measure.environment import cores_each
from harness.measure.memory import anonymous_bytes, settle_memory
from harness.planning.plan import PlannedRun
from harness.planning.workspace import Workspace
from harness.prediction.work.passes import Kind
from harness.prediction.work.rehearsal import Stopwatch, Timing
from harness.prediction.work.walker import RunWalker, Texts

TIMEOUT_SECONDS = 600.0


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
    """What the tasks took, by their keys, and PROGRAM and START. Starts `size` processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds.json"
        spawn(_rank, (size, free_port(), given.model_dump_json(), result), size)
        return json.loads(result.read_text(encoding="utf-8"))


# Under these: bytes that a rank held before the tasks, and the seconds in which it got its first engine.
PROGRAM, START = "program bytes", "engine start"


def timings(key: str, timing: Timing) -> dict[str, float]:
    """As it is kept between commands."""
    return {key: timing.seconds, f"{key} first": timing.first}


def _rank(rank: int, size: int, port: int, given: str, result: Path) -> None:
    sizes = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    where = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in (sizes | where).items()}
    threads = cores_each(size)
    torch.set_num_threads(threads)
    settle_memory()
    world, tasks = connect(TIMEOUT_SECONDS), Tasks.model_validate_json(given)
    workspace = Workspace(tasks.cache)
    texts, seconds = Texts(workspace), {}
    for task in tasks.tasks:
        planned, strategy = task.planned, task.planned.strategy
        assert strategy is not None, "baselines are not rehearsed"
        workspace.use_folder(planned.model.name, planned.model.folder)
        classes = len(planned.dataset(workspace).source.classes)
        walker = RunWalker(planned, strategy, texts.of(planned, strategy), classes, workspace, size, "cpu")
        timing = walker.rehearse(task.kind, task.blocks, Stopwatch(threads, world), task.done)
        seconds |= timings(task.key, timing)
        if PROGRAM not in seconds:
            seconds |= {PROGRAM: float(anonymous_bytes()), START: timing.engine}
    if rank == 0:
        result.write_text(json.dumps(seconds), encoding="utf-8")
    disconnect()
