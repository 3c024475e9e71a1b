"""Weights & Biases: one project for a suite; offline, below the folder, unless WANDB_MODE and WANDB_DIR differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.tracking.logged import LoggedRun, LoggedSuite

# Read when the library is imported. Errors of the library are its user's affair, not its maker's.
DEFAULTS = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}


class WandB:
    def __init__(self, suite: str, folder: Path) -> None:
        for name, value in {**DEFAULTS, "WANDB_DIR": str(folder), "WANDB_DATA_DIR": str(folder)}.items():
            os.environ.setdefault(name, value)
        import wandb

        self._wandb, self._suite = wandb, suite

    def log_run(self, run: LoggedRun) -> None:
        logged = self._begun(run.name, "run", config=run.settings, tags=[run.status])
        for step, values in sorted(run.curves.items()):
            logged.log(values, step=step)
        logged.summary.update({**run.figures, "status": run.status, **({"error": run.error} if run.error else {})})
        logged.finish(exit_code=0 if run.is_ok else 1)

    def log_suite(self, suite: LoggedSuite) -> None:
        logged = self._begun(self._suite, "suite")
        logged.summary.update(suite.figures)
        artifact = self._wandb.Artifact(f"{self._suite}-report", type="report")
        for path in suite.artifacts:
            artifact.add_file(str(path), skip_cache=True)
        logged.log_artifact(artifact)
        logged.finish()

    def _begun(self, name: str, kind: str, **more: Any) -> Any:
        """Without what the library finds out about the machine, the command and the code: the settings have it."""
        settings = self._wandb.Settings(
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_save_requirements=False,
        )
        return self._wandb.init(
            project=self._suite, group=self._suite, job_type=kind, name=name, settings=settings, **more
        )
