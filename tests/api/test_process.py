"""What `harness.compare` and `TextClassifier` leave of the process that they are called in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import backends

from harness import Comparison, TextClassifier, compare
from harness.api.process import process_kept
from harness.launch import worker
from harness.model.device_settings import apply_settings, settings_kept

TEXTS = [f"text number {number}, {'good' if number % 2 else 'bad'}" for number in range(60)]
FRAME = pd.DataFrame({"text": TEXTS, "label": [number % 2 for number in range(60)]})


def _compare(folder: Path, **options: Any) -> Comparison:
    places = {"results": folder / "results", "cache": folder / "cache"}
    return compare(FRAME, "last_block", **{"model": "mini", "epochs": 1, "quiet": True, **places, **options})


@contextmanager
def _unchanged() -> Iterator[None]:
    before = _state()
    yield
    assert _state() == before


def _state() -> dict[str, Any]:
    return {
        "random": torch.get_rng_state().tolist(),
        "seed": torch.initial_seed(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warned of": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (backends.cuda.cudnn_sdp_enabled(), backends.cudnn.allow_tf32),
        "matmul": (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32),
        "parts": (backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
    }


@pytest.fixture
def of_user() -> Iterator[None]:
    """Switches and a seed that differ from those of a run."""
    with process_kept():
        torch.manual_seed(5)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        backends.cudnn.allow_tf32 = True
        backends.cuda.enable_cudnn_sdp(True)
        yield


@pytest.mark.usefixtures("of_user")
def test_random_state_switches_and_handlers_are_as_before(tmp_path: Path) -> None:
    with _unchanged():
        made = _compare(tmp_path)
    with _unchanged():
        best = made.best
    with _unchanged():
        best.predict(TEXTS)
    with _unchanged():
        TextClassifier("head_only", model="mini", epochs=1, cache=tmp_path / "cache").fit(TEXTS, FRAME["label"])


@pytest.mark.usefixtures("of_user")
@pytest.mark.parametrize("tf32", [True, False])
def test_switches_are_as_before_whichever_interface_set_them(tf32: bool) -> None:
    backends.cuda.matmul.allow_tf32 = False  # "medium" does not hold for all: asked for one precision, PyTorch raises
    with pytest.raises(RuntimeError):
        torch.get_float32_matmul_precision()
    with settings_kept():
        apply_settings(deterministic=False, tf32=tf32)
    assert backends.cuda.matmul.fp32_precision == "ieee"
    assert backends.mkldnn.matmul.fp32_precision == "bf16"
    assert backends.cuda.cudnn_sdp_enabled()


def test_imports_are_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = []

    def settle_memory() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        finished.append(True)

    monkeypatch.setattr(worker, "settle_memory", settle_memory)
    with pytest.raises(KeyboardInterrupt):
        _compare(tmp_path)
    assert finished == [True]
    monkeypatch.undo()
    assert [record.status for record in _compare(tmp_path).records] == ["ok"]
