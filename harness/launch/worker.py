"""One rank of a worker group: joins the group and does the runs of a plan. Started by `harness.launch.launcher`."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.distributed.process_group import World, connect, disconnect, leave, single_process
from harness.distributed.signals import StopSignals
from harness.experiment.runner import RankLost, Runner
from harness.measure.memory import settle_memory
from harness.planning.plan import Plan
from harness.planning.workspace import Workspace
from harness.progress.factory import observer_for
from harness.progress.observer import Observer


def work(plan: Plan, workspace: Workspace, alone: bool = False) -> None:
    """Do the runs of the plan as one rank of its group, which it joins and leaves.

    alone: as the only process, whatever the environment says about a group.
    Raises KeyboardInterrupt where a signal asks to stop, RankLost where the group must be restarted.
    """
    work_in(single_process() if alone else connect(plan.runs[0].config.engine.timeout_seconds), plan, workspace)
    disconnect()


def work_in(world: World, plan: Plan, workspace: Workspace) -> None:
    """The same in a group that this process has joined."""
    with observer_for(plan, world) as observer:
        runner_for(plan, world, observer, workspace).execute()


def runner_for(plan: Plan, world: World, observer: Observer, workspace: Workspace) -> Runner:
    """What does the runs of the plan in this process, which listens to signals from here on."""
    stop_signals = StopSignals()
    stop_signals.listen()
    with stop_signals.postponed():  # an interrupted import leaves a part of its package, on which every later one fails
        settle_memory()
    return Runner.of(plan, world, observer, stop_signals, workspace)


if __name__ == "__main__":
    try:
        plan = Plan.model_validate_json(Path(sys.argv[1]).read_bytes())
        work(plan, Workspace(plan.cache, plan.features))
    except (KeyboardInterrupt, RankLost):
        leave(1)  # the record has the reason
    leave(0)
