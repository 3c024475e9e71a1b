"""Runs handed to trackers when they have ended."""

from __future__ import annotations

from collections.abc import Callable

from harness.planning.plan import PlannedRun
from harness.progress.observer import Observer
from harness.results.record import Record
from harness.tracking.client import TrackingClient


class TrackedRuns(Observer):
    """Not before: during a run they would change the time and the memory that are measured. tell: shows a line."""

    def __init__(self, client: TrackingClient, tell: Callable[[str], None]) -> None:
        self._client, self._tell = client, tell
        self._planned: PlannedRun | None = None

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self._planned = planned

    def run_finished(self, record: Record) -> None:
        assert self._planned is not None, "no run is under way"
        for problem in log_run(self._client, self._planned):
            self._tell(problem)


def log_run(client: TrackingClient, planned: PlannedRun) -> list[str]:
    """Log a run that has its record; returns a line about each tracker that has failed."""
    return client.run_ended(planned.run_id, f"{planned.title}, seed {planned.config.seed}")
