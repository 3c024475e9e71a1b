"""How many runs of a suite are done side by side on this machine."""

from __future__ import annotations

import psutil
import torch

from harness.errors import UserError
from harness.measure.environment import cores
from harness.planning.plan import Plan
from harness.planning.workspace import Workspace

# Of a model whose steps gain more from a process of their own than from more threads (docs/performance.md).
MOST_PARAMETERS = 30_000_000
# Of a process that trains all of a model: PyTorch and its caches, then weights, gradients and the optimizer's state.
BYTES_OF_PROCESS, BYTES_OF_PARAMETER = 1_000_000_000, 16


def with_jobs(plan: Plan, asked: str, workspace: Workspace) -> Plan:
    """asked: `auto` or a number. `auto` is one run a GPU; on CPUs one a core, where all models are small and as far as
    the free memory goes.

    Raises UserError for a number that is none, for more than there are GPUs or cores, and for several beside runs of
    several ranks.
    """
    check_jobs(plan, asked)
    if asked == "1":
        return plan
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        jobs, reason = (gpus, "one a GPU") if gpus else _auto_on_cpus(plan, workspace)
        return plan.model_copy(update={"jobs": jobs, "why_jobs": f"auto: {reason}"})
    most, what = (gpus, "GPU(s)") if gpus else (cores(), "core(s)")
    if int(asked) > most:
        raise UserError(
            f"JOBS={asked}, but this machine has {most} {what}: expected at most one run for each, or auto."
        )
    return plan.model_copy(update={"jobs": int(asked), "why_jobs": "as asked"})


def check_jobs(plan: Plan, asked: str) -> None:
    """Whether they can be what is asked for, on any machine."""
    if asked != "auto" and not (asked.isdecimal() and int(asked)):
        raise UserError(f"JOBS={asked!r}: expected a whole number from 1, or auto.")
    ranks = max(run.config.engine.world_size for run in plan.runs)
    if asked != "1" and (ranks > 1 or plan.hosts.hostfile):
        raise UserError(
            f"JOBS={asked} with runs on several ranks (NPROC, NNODES or HOSTFILE): expected either; leave JOBS out, or "
            "give each run one rank."
        )


def _auto_on_cpus(plan: Plan, workspace: Workspace) -> tuple[int, str]:
    """The number, and the reason."""
    sizes = {run.model.name: workspace.parameters(run.model.name) for run in plan.runs if run.strategy}
    largest = max(sizes, key=sizes.__getitem__, default=None)
    parameters = sizes[largest] if largest else 0
    if parameters > MOST_PARAMETERS:
        return 1, f"{largest} has {parameters / 1e6:.0f}M parameters, so that a step uses all cores"
    fitting = psutil.virtual_memory().available // (BYTES_OF_PROCESS + BYTES_OF_PARAMETER * parameters)
    if fitting < cores():
        return max(1, fitting), "as many as fit into the free memory"
    return cores(), "one a core, since the models are small"
