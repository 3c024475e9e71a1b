"""One rank of a worker group: joins the group and does the runs of a plan. Started by `harness.launch.launcher`."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.distributed.process_group import World, connect, device_of, disconnect, leave
from harness.distributed.signals import StopSignals
from harness.experiment.runner import RankLost, Runner
from harness.measure.memory import keep_freed_memory
from harness.planning.plan import Plan
from harness.progress.factory import observer_for


def work(plan: Plan, alone: bool = False) -> None:
    """alone: in one process that no launcher started, whatever the environment says.

    Raises KeyboardInterrupt where the suite was asked to stop, RankLost where its group must start anew.
    """
    signals = StopSignals()
    signals.listen()
    # What an optimizer imports when it is built, 70 MB, would count as the first run's memory.
    import torch._dynamo  # noqa: F401

    keep_freed_memory()
    world = World(0, 1, device_of(0)) if alone else connect(plan.runs[0].config.engine.timeout_seconds)
    with observer_for(plan, world) as observer:
        Runner.of(plan, world, observer, signals).execute()
    disconnect()


if __name__ == "__main__":
    try:
        work(Plan.model_validate_json(Path(sys.argv[1]).read_bytes()))
    except (KeyboardInterrupt, RankLost):
        leave(1)  # the record tells why
    leave(0)
