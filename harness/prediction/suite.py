"""What a suite is told before its first run: how long each will take, and which do not fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.errors import UserError
from harness.measure.memory import anonymous_bytes
from harness.planning.plan import Plan
from harness.planning.workspace import Workspace
from harness.prediction.devices import device_of_title
from harness.prediction.machine import Machine
from harness.prediction.predict import Device, Predictor
from harness.prediction.prediction import NotPredicted, Prediction


def device_at_hand(workspace: Workspace) -> Device:
    """To be called when all is imported: what this process holds then is what a worker holds before a run.

    Raises UserError for a GPU whose figures are not kept.
    """
    if not torch.cuda.is_available():
        return Machine.at_hand(workspace.cache, anonymous_bytes())
    title = torch.cuda.get_device_name()
    found = device_of_title(title)
    if found is None:
        raise UserError(f"no figures of {title} are kept: name a device that is like it (DEVICE=h100).")
    return found


@dataclass(frozen=True)
class Expected:
    """seconds: of runs, by their ids. too_large: predictions of those that do not fit."""

    seconds: dict[str, float]
    too_large: list[Prediction]
    not_predicted: list[NotPredicted]


def expected(plan: Plan, workspace: Workspace) -> Expected:
    """What its runs are expected to take. Nothing where the figures of the GPU at hand are not kept.

    Raises UserError where memory does not suffice for a prediction.
    """
    if torch.cuda.is_available() and device_of_title(torch.cuda.get_device_name()) is None:
        return Expected({}, [], [])
    predictor = Predictor(workspace, device_at_hand(workspace))
    found = predictor.of_plan(plan)
    predictor.keep()
    predictions = [one for one in found if isinstance(one, Prediction)]
    return Expected(
        seconds={one.planned.run_id: one.total_seconds for one in predictions if one.fits},
        too_large=[one for one in predictions if not one.fits],
        not_predicted=[one for one in found if isinstance(one, NotPredicted)],
    )
