"""Which runs of a plan are trained as one model: those that differ in seed and learning rate only, and are small steps.

The last run of each such group is done by itself, when the features are stored: its times and its memory are those of
the strategy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.model.backbone import Block
from harness.model.split import Suffix
from harness.planning.plan import Plan, PlannedRun
from harness.planning.strategy import split_without_tensors
from harness.planning.workspace import Workspace

# Of parameters, gradients and the optimizer's state of all runs of a group.
MOST_BYTES = 2_000_000_000


def joint_groups(plan: Plan, workspace: Workspace, device: str) -> Iterator[list[PlannedRun]]:
    """Groups of two runs or more, without the last run of each strategy. device: its type, such as "cpu"."""
    alike: dict[str, list[PlannedRun]] = {}
    for planned in plan.in_order():
        if _may_be_joint(planned):
            alike.setdefault(_but_for_seed_and_rate(planned), []).append(planned)
    for *others, alone in alike.values():
        count = _joint_parameters(alone, workspace, device) if len(others) > 1 else None
        if count is None:
            continue
        size = max(1, MOST_BYTES // (16 * count))
        groups = [others[start : start + size] for start in range(0, len(others), size)]
        yield from (group for group in groups if len(group) > 1)


def _may_be_joint(planned: PlannedRun) -> bool:
    strategy, config, training = planned.strategy, planned.config, planned.training
    if strategy is None or strategy.builds or strategy.fits_head or not planned.frozen_stages:
        return False
    alone = config.plain or config.engine.name != "ddp" or config.engine.world_size > 1
    other = training.judges_epochs or training.micro_batch_size or training.dropout or training.gradient_checkpointing
    return not (alone or other)


def _but_for_seed_and_rate(planned: PlannedRun) -> str:
    optimizer = {key: value for key, value in planned.used["optimizer"].items() if key != "learning_rate"}
    used = {key: value for key, value in planned.used.items() if key != "seed"} | {"optimizer": optimizer}
    return json.dumps([used, planned.source.sha256, planned.data_sha256, planned.model.weights_sha256], sort_keys=True)


def _joint_parameters(planned: PlannedRun, workspace: Workspace, device: str) -> int | None:
    """How many parameters a run trains; None where its steps would gain nothing from being done together."""
    assert planned.strategy is not None, "a baseline takes no steps"
    strategy, model = planned.strategy.strategy(), workspace.model(planned.model.name)
    classes = len(planned.dataset(workspace).source.classes)
    _, suffix = workspace.once(
        ("cut", strategy, planned.model.name, classes), lambda: split_without_tensors(strategy, model, classes)
    )
    if not _gains(suffix, planned.strategy.readout, device):
        return None
    return sum(parameter.numel() for parameter in suffix.parameters() if parameter.requires_grad)


def _gains(suffix: Suffix, readout: str, device: str) -> bool:
    """Whether the overhead of a step outweighs its arithmetic: a head's always, on a GPU also that of one block which
    computes one token of each row. A CPU multiplies stacked matrices slower than one after the other."""
    blocks = sum(isinstance(stage, Block) for stage in suffix.stages)
    return not suffix.names or (device != "cpu" and blocks <= 1 and readout in ("first", "last"))
