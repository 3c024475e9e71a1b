"""Which trackers there are, and which a suite is logged to."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from harness.errors import UserError, did_you_mean
from harness.packages import require
from harness.tracking.logged import LoggedRun, LoggedSuite

NAMES = ("tensorboard", "mlflow", "trackio", "wandb")  # of the options, and of the packages
FOLDER = "tracking"  # in RESULTS
# Commands that show what was logged below a folder.
_SHOW = {
    "tensorboard": "tensorboard --logdir {folder}",
    "mlflow": "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db",
    "trackio": "TRACKIO_DIR={folder} trackio show",
    "wandb": "wandb sync {folder}/wandb/offline-run-*",
}
# Variables of the user with which a tracker logs elsewhere.
_ELSEWHERE = {"mlflow": "MLFLOW_TRACKING_URI", "trackio": "TRACKIO_DIR", "wandb": "WANDB_DIR"}


class Tracker(Protocol):
    """What writes to one library's store, below a folder unless the user's environment names another."""

    def log_run(self, run: LoggedRun) -> None: ...

    def log_suite(self, suite: LoggedSuite) -> None: ...


class Tracking(BaseModel):
    """suite: the name under which trackers group its runs, in letters that all of them take."""

    suite: str
    trackers: tuple[str, ...]


def parse_trackers(given: str) -> tuple[str, ...]:
    """The trackers in `tensorboard,mlflow`, each once.

    Raises UserError for an unknown one, and for one whose library is not installed.
    """
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise UserError(f"TRACK={given!r}: unknown tracker {name!r}: {hint}Known are {', '.join(NAMES)}.")
        require(name, "track", f"TRACK={given!r}")
    return names


def command_that_shows(name: str, results: Path) -> str | None:
    """What the user types to see what is logged in a results folder; None where it is logged elsewhere."""
    if (variable := _ELSEWHERE.get(name)) and variable in os.environ:
        return None
    return _SHOW[name].format(folder=shlex.quote(str(results / FOLDER / name)))


def open_tracker(name: str, suite: str, folder: Path) -> Tracker:
    """Imports the library, which takes seconds."""
    match name:
        case "tensorboard":
            from harness.tracking.tensorboard import TensorBoard

            return TensorBoard(suite, folder)
        case "mlflow":
            from harness.tracking.mlflow import MLflow

            return MLflow(suite, folder)
        case "trackio":
            from harness.tracking.trackio import Trackio

            return Trackio(suite, folder)
        case _:
            from harness.tracking.wandb import WandB

            return WandB(suite, folder)
