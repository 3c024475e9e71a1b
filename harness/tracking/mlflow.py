"""MLflow: one experiment for a suite; a SQLite store below the folder, unless MLFLOW_TRACKING_URI names another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.tracking.logged import LoggedRun, LoggedSuite

SUITE_TAG = "ftbench.suite"
# What one request of its protocol may hold.
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM, LONGEST_TAG = 1000, 100, 6000, 5000
# Read when the library is imported: no telemetry; a server that does not answer is given up within a minute.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MLflow:
    def __init__(self, suite: str, folder: Path) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # pyright: ignore[reportAttributeAccessIssue]  # may be absent

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client, self._suite = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}"), suite
        found = self._client.get_experiment_by_name(suite)
        artifacts = None if uri else (folder / "artifacts").as_uri()
        self._experiment = found.experiment_id if found else self._client.create_experiment(suite, artifacts)

    def log_run(self, run: LoggedRun) -> None:
        from mlflow.entities import Metric, Param, RunTag  # pyright: ignore[reportMissingImports]

        ended = round(1000 * run.ended)
        points = [*((step, values) for step, values in run.curves.items()), (run.last_step, run.figures)]
        metrics = [Metric(name, value, ended, step) for step, values in points for name, value in values.items()]
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in run.settings.items()]
        tags = [RunTag("ftbench.status", run.status)]
        tags += [RunTag("ftbench.error", run.error[-LONGEST_TAG:])] if run.error else []
        run_id = self._created(run.name, {"ftbench.run_id": run.run_id}, started=round(1000 * run.started))
        with self._failed_if_not_logged(run_id):
            for first in range(0, len(params), MOST_PARAMS):
                self._client.log_batch(run_id, params=params[first : first + MOST_PARAMS])
            for first in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS])
            self._client.log_batch(run_id, tags=tags)
            self._client.set_terminated(run_id, "FINISHED" if run.is_ok else "FAILED", ended)

    def log_suite(self, suite: LoggedSuite) -> None:
        """In a run of the suite's name, which a later call changes."""
        found = self._client.search_runs([self._experiment], f"tags.`{SUITE_TAG}` = 'table'", max_results=1)
        run_id = found[0].info.run_id if found else self._created(self._suite, {SUITE_TAG: "table"})
        with self._failed_if_not_logged(run_id):
            for name, value in suite.figures.items():
                self._client.log_metric(run_id, name, value)
            for path in suite.artifacts:
                self._client.log_artifact(run_id, str(path))
            self._client.set_terminated(run_id)

    @contextmanager
    def _failed_if_not_logged(self, run_id: str) -> Iterator[None]:
        """A run that MLflow took in part only does not look as if it were still under way."""
        try:
            yield
        except Exception:
            with suppress(Exception):  # a server that is away: the first problem is the one to tell
                self._client.set_terminated(run_id, "FAILED")
            raise

    def _created(self, name: str, tags: dict[str, str], started: int | None = None) -> str:
        run = self._client.create_run(self._experiment, started, tags, run_name=name)
        return run.info.run_id
