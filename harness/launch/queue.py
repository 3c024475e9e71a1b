"""In which order jobs are given the runs of a suite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.planning.joint import joint_groups
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.results.store import Store

# What one worker does in one go: a run, or those that are trained as one model.
Unit = list[PlannedRun]


@dataclass
class Queue:
    """waiting: in order. stored: strategies of which a unit has ended, whose features are therefore stored."""

    waiting: list[Unit]
    stored: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, plan: Plan, store: Store, workspace: Workspace, device: str) -> Queue:
        """The runs of the plan that have no record. device: its type, such as "cpu"."""
        groups = joint_groups(plan, workspace, device)
        group_of = {run.run_id: str(number) for number, group in enumerate(groups) for run in group}
        units: dict[str, Unit] = {}
        for run in plan.in_order():
            if not store.has(run.run_id):
                units.setdefault(group_of.get(run.run_id, run.run_id), []).append(run)
        return cls(_longest_first(units.values()))

    def __len__(self) -> int:
        return len(self.waiting)

    def next(self, under_way: Iterable[Unit]) -> Unit:
        """The first that waits; empty where none does. under_way: what other jobs do.

        One that needs features which another job is about to store comes after those that don't: it would wait.
        """
        storing = {unit[0].name for unit in under_way if unit and unit[0].frozen_stages} - self.stored
        free = (number for number, unit in enumerate(self.waiting) if unit[0].name not in storing)
        return self.waiting.pop(next(free, 0)) if self.waiting else []

    def ended(self, unit: Unit) -> None:
        self.stored.update(run.name for run in unit)

    def put_back(self, unit: Unit) -> None:
        """To be the next."""
        if unit:
            self.waiting.insert(0, unit)


def _longest_first(units: Iterable[Unit]) -> list[Unit]:
    """By the seconds that runs are expected to take; those of which nobody knows, such as baselines, after the others
    and in the order in which they were. What ran out of memory before may take its process with it, and is last."""
    return sorted(units, key=lambda unit: (unit[0].too_large, -sum(run.expected_seconds or 0.0 for run in unit)))
