"""What a suite is told before its first run: how long each will take, and which do not fit."""

from __future__ import annotations

import torch

from harness.errors import UserError
from harness.measure.memory import anonymous_bytes
from harness.planning.plan import Plan
from harness.planning.workspace import Workspace
from harness.prediction.devices import device_named, device_of_title
from harness.prediction.machine import Machine
from harness.prediction.predict import Device, Prediction, Predictor


def device_for(asked: str | None, workspace: Workspace) -> Device:
    """asked: a name that `devices.yaml` has; None: what is at hand. To be called when all is imported: what this
    process holds then is what a worker holds before a run.

    Raises UserError for an unknown name, and for a GPU at hand whose figures are not kept.
    """
    if asked:
        return device_named(asked)
    if not torch.cuda.is_available():
        return Machine.at_hand(workspace.cache, anonymous_bytes())
    title = torch.cuda.get_device_name()
    found = device_of_title(title)
    if found is None:
        raise UserError(f"no figures of {title} are kept: name a device that is like it (DEVICE=h100).")
    return found


def expected(plan: Plan, workspace: Workspace) -> tuple[dict[str, float], list[Prediction]]:
    """Seconds that its runs are expected to take, by their ids, and the predictions of those that do not fit. Nothing
    where the figures of the GPU at hand are not kept.

    Raises UserError where memory does not suffice for a prediction.
    """
    if torch.cuda.is_available() and device_of_title(torch.cuda.get_device_name()) is None:
        return {}, []
    predictor = Predictor(workspace, device_for(None, workspace))
    predictions = predictor.of_plan(plan)
    predictor.keep()
    seconds = {one.planned.run_id: one.total_seconds for one in predictions if one.fits}
    return seconds, [one for one in predictions if not one.fits]
