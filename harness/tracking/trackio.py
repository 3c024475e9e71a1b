"""Trackio: one project for a suite; its SQLite files lie below the folder, unless TRACKIO_DIR names another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.tracking.logged import LoggedRun, LoggedSuite

# Read when the libraries are imported: no telemetry.
DEFAULTS = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


class Trackio:
    def __init__(self, suite: str, folder: Path) -> None:
        for name, value in {**DEFAULTS, "TRACKIO_DIR": str(folder)}.items():
            os.environ.setdefault(name, value)
        import trackio

        self._trackio, self._suite = trackio, suite

    def log_run(self, run: LoggedRun) -> None:
        ended = {"status": run.status, **({"error": run.error} if run.error else {})}
        logged = self._begun(run.name, {**run.settings, **ended})
        for step, values in sorted(run.curves.items()):
            logged.log(values, step=step)
        logged.log(run.figures, step=run.last_step)
        logged.finish()

    def log_suite(self, suite: LoggedSuite) -> None:
        logged = self._begun(self._suite, {})
        logged.log(suite.figures)
        artifact = self._trackio.Artifact("report", type="report")
        for path in suite.artifacts:
            artifact.add_file(path)
        logged.log_artifact(artifact)
        logged.finish()

    def _begun(self, name: str, config: dict[str, str | float]) -> Any:
        """Without what the library finds out about the machine while it logs."""
        return self._trackio.init(
            self._suite, name=name, group=self._suite, config=config, auto_log_gpu=False, auto_log_cpu=False
        )
