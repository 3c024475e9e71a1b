"""How many runs are done side by side."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from harness.config.suite import load_suite
from harness.errors import UserError
from harness.launch.jobs import part_of_machine
from harness.measure.environment import cores
from harness.planning.jobs import with_jobs
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace


def _planned(folder: Path, **changes: Any) -> tuple[Plan, Workspace]:
    workspace = Workspace(folder / "cache")
    asked = {"model.name": "mini", "data.name": "synthetic", "data.size": 60, "strategy": ["head_only", "tfidf"]}
    return resolve(load_suite(None, asked | changes, []), folder / "results", workspace), workspace


def _resolved(asked: str, planned: tuple[Plan, Workspace]) -> tuple[int, str]:
    plan = with_jobs(planned[0], asked, planned[1])
    return plan.jobs, plan.why_jobs


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_auto_is_one_a_core_for_small_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = _planned(tmp_path)
    assert _resolved("1", planned) == (1, "")
    assert _resolved("auto", planned) == (cores(), "auto: one a core, since the models are small")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_500_000_000))
    assert _resolved("auto", planned) == (1, "auto: as many as fit into the free memory")


@pytest.mark.usefixtures("assets")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_auto_is_one_where_a_model_is_large(tmp_path: Path) -> None:
    large = {"model.name": "gpt2", "model.weights": "random"}
    jobs, reason = _resolved("auto", _planned(tmp_path, **large))
    assert jobs == 1
    assert reason.startswith("auto: gpt2 has 124M parameters")
    baselines = _planned(tmp_path, strategy=["tfidf", "majority"], **large)
    assert _resolved("auto", baselines)[0] == cores(), "no model is trained"


def test_on_a_machine_with_gpus_each_job_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = _planned(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert _resolved("auto", planned) == (3, "auto: one a GPU")
    assert _resolved("2", planned) == (2, "as asked")
    with pytest.raises(UserError, match=r"JOBS=4, but this machine has 3 GPU\(s\)"):
        _resolved("4", planned)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [part_of_machine(number, 3)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)] == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-9f2c,7")
    assert [part_of_machine(number, 3)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3)] == ["5", "GPU-9f2c", "7"]


def test_cores_are_shared_unless_the_user_has_said_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert int(part_of_machine(1, cores())["OMP_NUM_THREADS"]) == 1
    assert int(part_of_machine(1, 1)["OMP_NUM_THREADS"]) == cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert part_of_machine(1, cores())["OMP_NUM_THREADS"] == "3"
