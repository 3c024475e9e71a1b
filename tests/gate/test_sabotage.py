"""The gate sees sabotage: the code is broken in memory, and a small suite of the gate runs again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from harness.gate import rerun
from harness.gate.checks import compare
from harness.gate.measurement import Measurement
from harness.gate.suite import chosen
from harness.kernels import one_query
from harness.model import split
from harness.training.batches import TrainingBatches
from harness.training.engines import ddp
from tests.support.gate_suite import use_suite

STRATEGIES = ["head_only", "last_block"]
LOSSES = {"losses of head_only", "losses of last_block"}
ACCURACIES = {"accuracy of head_only", "accuracy of last_block"}


def _no_learning(set_learning_rate: Callable) -> Callable:
    return lambda optimizer, rate: set_learning_rate(optimizer, 0.0)


def _no_weight_decay(adamw: Callable) -> Callable:
    return lambda named, config, *rest: adamw(named, config.model_copy(update={"weight_decay": 0.0}), *rest)


def _read_one_token_early(_: Callable) -> Callable:
    return lambda batch, position: batch.starts + batch.lengths - 2


def _attend_to_padding(_: Callable) -> Callable:
    return lambda batch, *rest, **named: torch.ones(len(batch.lengths), 1, batch.width, dtype=torch.bool)


def _freeze_blocks(selected: Callable) -> Callable:
    return lambda stages, parts, name: [] if name.startswith("block") else selected(stages, parts, name)


def _swap_two_labels(micro_batch: Callable) -> Callable:
    def swapped(*arguments):
        made = micro_batch(*arguments)
        made.labels[:2] = made.labels[:2].flip(0)
        return made

    return swapped


@dataclass(frozen=True)
class Sabotage:
    """broken: given the function `owner.name`, the one that takes its place. seen_by: the checks that must alarm."""

    owner: object
    name: str
    broken: Callable[[Callable], Callable]
    seen_by: set[str]


SABOTAGES = {
    # Two of the three seeds of head_only are trained as one, without an engine: its accuracy falls for one.
    "no learning": Sabotage(ddp, "set_learning_rate", _no_learning, {"accuracy of last_block"} | LOSSES),
    "no weight decay": Sabotage(ddp, "adamw", _no_weight_decay, LOSSES),
    "readout off by one": Sabotage(one_query, "read_indices", _read_one_token_early, LOSSES),
    "padding attended": Sabotage(one_query, "visible", _attend_to_padding, LOSSES),
    "last block frozen": Sabotage(
        split,
        "selected_parameters",
        _freeze_blocks,
        {"accuracy of last_block", "losses of last_block", "parameters of last_block"},
    ),
    "labels swapped": Sabotage(TrainingBatches, "_micro_batch", _swap_two_labels, LOSSES),
}


def _measured(folder: Path) -> Measurement:
    with rerun.planned(chosen(None, None), folder / "results", folder / "cache", costs=True) as planned:
        return planned.measure()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("honest")
        use_suite(patch, folder, 3_000, 3, STRATEGIES)
        return _measured(folder)


@pytest.mark.long
@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_sabotage_is_seen(
    sabotage: Sabotage, honest: Measurement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_suite(monkeypatch, tmp_path, 3_000, 3, STRATEGIES)
    calls = _put_in_place(sabotage, monkeypatch)
    findings = compare(honest, _measured(tmp_path))
    assert calls, f"{sabotage.name} was never called: the sabotage is none"
    alarming = {f"{one.check} of {one.row}" for one in findings if one.verdict == "regression"}
    assert sabotage.seen_by <= alarming, "\n".join(map(str, findings))


def _put_in_place(sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Returns a list that grows with each call of the broken function."""
    broken, calls = sabotage.broken(getattr(sabotage.owner, sabotage.name)), []

    def counted(*arguments, **named):
        calls.append(None)
        return broken(*arguments, **named)

    monkeypatch.setattr(sabotage.owner, sabotage.name, counted)
    return calls
