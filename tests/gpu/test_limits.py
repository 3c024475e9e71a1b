"""At the limits: a device without memory left, texts of one token beside texts of the full context."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.device_runs import Runs, watched_captures

pytestmark = pytest.mark.gpu

_GREEDY = '''
"""Asks for a petabyte in the {phase} phase."""
import torch

from harness import Strategy


def ask(module, *_):
    return torch.empty(1 << 50, dtype=torch.uint8, device=next(module.parameters()).device) and None


def build(backbone):
    for parameter in backbone.blocks[-1].parameters():
        parameter.requires_grad_(True)
    backbone.blocks[{block}].register_forward_hook(ask)


strategy = Strategy(build=build)
'''


@pytest.mark.parametrize(("phase", "block"), [("features", 0), ("training", -1)])
def test_out_of_memory_is_a_result_and_the_suite_goes_on(
    runs: Runs, tmp_path: Path, device: torch.device, phase: str, block: int
) -> None:
    path = tmp_path / "greedy.py"
    path.write_text(_GREEDY.format(phase=phase, block=block))
    records = runs.run("results", [str(path), "last_block"])
    assert {name: record.status for name, record in records.items()} == {"greedy": "oom", "last_block": "ok"}
    assert "memory" in records["greedy"].reason
    if device.type == "cuda":
        assert torch.cuda.memory_allocated(device) < 1e9, "what the run held is free again"


@pytest.fixture
def uneven_texts(tmp_path: Path) -> Path:
    """In most batches of 8 there are texts of one token and texts that fill mini's context."""
    path = tmp_path / "uneven.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(120):
            short, long = "ab"[number % 2], f"text {number} " + "call me now. " * 200
            writer.writerow([short if number % 3 else long, number % 2])
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["last_block", "full", "lora", "mean_pool", "no_causal_mask"])
def test_one_token_and_the_full_context_in_one_batch(
    runs: Runs, device: torch.device, uneven_texts: Path, name: str, precision: str
) -> None:
    """A gradient that is not a number would make the next loss one."""
    options = {"data.name": str(uneven_texts), "data.split": "random", "precision": precision}
    with watched_captures(device) as captures:
        found = runs.finished("results", [name], **options)[name]
    assert not captures.refused
    assert np.isfinite(found.losses).all()
    assert np.isfinite(found.record.ok_metrics.test.loss)
