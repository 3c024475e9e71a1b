"""One command to N processes: in this one where one rank is enough, under torchrun where more are asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.engine.world import World
from harness.plan import Plan, PlannedRun
from harness.records import Store
from harness.run import Outcome, make_record
from harness.worker import work

STOP_SECONDS = 30


def launch(plan: Plan) -> None:
    """Do every run of the plan; each leaves a record. One worker group serves all of them.

    A lost rank ends its run as `failed`, and a new group goes on with the rest.
    Raises KeyboardInterrupt where the user stopped it.
    """
    if not plan.runs:
        return
    if plan.runs[0].config.engine.processes == 1:
        work(plan)
        return
    store = Store(plan.results)
    while pending := [planned for planned in plan.runs if not store.has(planned.run_id)]:
        exit_code = _run_group(plan)
        left = [planned for planned in pending if not store.has(planned.run_id)]
        if exit_code and left == pending:
            _record_loss(left[0], store, f"a rank was lost: torchrun ended with exit code {exit_code}")


def _run_group(plan: Plan) -> int:
    processes = plan.runs[0].config.engine.processes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        # In a session of its own: Ctrl-C reaches this process only, which tells torchrun, which tells its workers.
        group = subprocess.Popen(
            [*command, "-m", "harness.worker", str(path)], env=_environment(processes), start_new_session=True
        )
        try:
            return group.wait()
        except KeyboardInterrupt:
            group.send_signal(signal.SIGINT)
            try:
                group.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(group.pid, signal.SIGKILL)
            raise


def _environment(processes: int) -> dict[str, str]:
    """Each rank gets its share of the cores; torchrun alone would give it one."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {"OMP_NUM_THREADS": str(threads)} | os.environ


def _record_loss(planned: PlannedRun, store: Store, reason: str) -> None:
    import torch

    world = World(0, planned.config.engine.processes, torch.device("cpu"))
    store.write(make_record(planned, world, Outcome.begin(world), "failed", reason))
