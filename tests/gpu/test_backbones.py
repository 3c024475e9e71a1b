"""Backbones of `transformers` on the device: encoders and decoders, windows and grouped heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.device_runs import Runs, on_cpu, watched_captures

pytestmark = pytest.mark.gpu

# Decoders with grouped heads, one with a window too; encoders, one with windows.
FAMILIES = ["llama", "mistral", "bert", "modernbert"]


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    pytest.importorskip("transformers")
    from tests.support.hub_models import save_small

    return f"hf:{save_small(tmp_path / request.param, request.param)}"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    from tests.support.hub_models import write_texts

    return write_texts(tmp_path / "texts.csv", shortest=1, longest=39)


@pytest.mark.parametrize("name", ["last_block", "full"])
@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_losses_are_those_of_the_cpu(runs: Runs, device: torch.device, model: str, texts: Path, name: str) -> None:
    options = {"model.name": model, "data.name": str(texts)}
    with on_cpu():
        expected = runs.finished("cpu", [name], **options)[name]
    with watched_captures(device) as captures:
        found = runs.finished("device", [name], **options)[name]
    assert not captures.refused
    assert captures.count > 0
    assert found.losses == pytest.approx(expected.losses, abs=1e-3)
    rounded = runs.finished("bf16", [name], **options, precision="bf16")[name]
    assert rounded.losses == pytest.approx(expected.losses, abs=0.1)
