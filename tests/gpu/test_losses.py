"""The losses of a GPU are those of the CPU, whether steps are captured or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from strategies import built_in_names
from tests.support.device_runs import Captures, Finished, Runs, kernel_by_kernel, watched_captures

pytestmark = pytest.mark.gpu

# What float32 rounding grows to within 22 steps; a wrong gradient moves losses by more than 1e-2.
TOLERANCE = 1e-3
# Of bfloat16 products beside float32.
BF16_TOLERANCE = 0.02


def compare(what: str, ours: Finished, theirs: Finished, tolerance: float = TOLERANCE) -> None:
    assert len(ours.losses) == len(theirs.losses) == 22
    worst = float(np.abs(np.subtract(ours.losses, theirs.losses)).max())
    print(f"{what}: losses at most {worst:.1e} apart")
    assert worst < tolerance


@pytest.fixture(scope="module")
def without_graphs(shared_runs: Runs) -> dict[str, Finished]:
    with kernel_by_kernel():
        return shared_runs.finished("kernel by kernel", built_in_names())


@pytest.mark.parametrize("name", built_in_names())
def test_float32_gives_the_losses_of_the_cpu(
    of_device: dict[str, Finished], of_cpu: dict[str, Finished], name: str
) -> None:
    compare(f"{name}, GPU and CPU", of_device[name], of_cpu[name])
    ours, theirs = (found[name].record.ok_metrics.test.loss for found in (of_device, of_cpu))
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.parametrize("name", built_in_names())
def test_captured_steps_give_the_same_losses(
    with_graphs: tuple[dict[str, Finished], dict[str, Captures]], without_graphs: dict[str, Finished], name: str
) -> None:
    finished, captures = with_graphs
    assert not captures[name].refused
    assert captures[name].count > 0
    compare(f"{name}, {captures[name].count} graphs and none", finished[name], without_graphs[name])


@pytest.mark.parametrize("name", ["last_block", "last_padded", "full", "lora"])
def test_the_plain_path_gives_the_same_losses(runs: Runs, of_device: dict[str, Finished], name: str) -> None:
    compare(f"{name}, plain path", runs.finished("plain", [name], plain=True)[name], of_device[name])


@pytest.mark.parametrize("name", ["last_block", "full", "lora"])
def test_micro_batches_and_clipping_are_captured_too(runs: Runs, device: torch.device, name: str) -> None:
    options = {"training__micro_batch_size": 3, "optimizer__clip_norm": 0.5}
    with kernel_by_kernel():
        expected = runs.finished("kernel by kernel", [name], **options)[name]
    with watched_captures(device) as captures:
        found = runs.finished("graphs", [name], **options)[name]
    assert not captures.refused
    assert captures.count > 0
    compare(f"{name}, micro-batches of 3, clipped", found, expected)


@pytest.mark.parametrize("name", built_in_names())
def test_bfloat16_stays_near_float32(
    runs: Runs, device: torch.device, of_device: dict[str, Finished], name: str
) -> None:
    with watched_captures(device) as captures:
        found = runs.finished("bf16", [name], precision="bf16")[name]
    assert not captures.refused
    compare(f"{name}, bfloat16 and float32", found, of_device[name], BF16_TOLERANCE)
