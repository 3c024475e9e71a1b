"""Determinism and TF32: set at the start of each run, part of what identifies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import strategies
from harness.features.key import FeatureKeys
from harness.model.device_settings import apply_settings
from harness.model.named.weights import empty_backbone
from harness.model.split import split
from harness.training import loop

SMALL = {"data__size": 60, "training__epochs": 1}


@pytest.fixture(autouse=True)
def _default_settings() -> Iterator[None]:
    yield
    apply_settings(deterministic=False, tf32=False)


def _in_force() -> tuple[bool, bool, bool]:
    cuda = torch.backends.cuda
    return torch.are_deterministic_algorithms_enabled(), cuda.matmul.allow_tf32, cuda.cudnn_sdp_enabled()


def test_each_run_has_its_own_settings(run_here: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at each training step; the runs share this process."""
    seen, mark = [], loop.Clock.mark

    def watched(clock: loop.Clock) -> object:
        seen.append(_in_force())
        return mark(clock)

    monkeypatch.setattr(loop.Clock, "mark", watched)
    for given in ({"deterministic": True}, {"tf32": True}, {}, {"deterministic": True, "plain": True}):
        seen.clear()
        (record,) = run_here(strategy=["last_block"], **SMALL, **given)
        assert record.status == "ok", record.error
        expected = given.get("deterministic", False), given.get("tf32", False)
        assert (record.config["deterministic"], record.config["tf32"]) == expected
        assert set(seen) == {(*expected, False)}


@pytest.mark.parametrize("setting", ["deterministic", "tf32"])
def test_a_run_with_another_setting_is_another_run(run_here: Callable, setting: str) -> None:
    strategies_and_baseline = ["head_only", "zero_shot", "majority"]
    options = {"strategy": strategies_and_baseline, "data__size": 60, "training__epochs": 0}
    before = {record.strategy: record.identity for record in run_here(**options)}
    after = {record.strategy: record.identity for record in run_here(**options, **{setting: True})}
    assert after.keys() == {"head_only", "zero_shot"}, "nothing of majority depends on it"
    assert all(before[name] != identity for name, identity in after.items())


EACH_KIND = ["probe", "last_block", "full", "dora", "ia3", "prefix_tuning", "prompt_tuning", "mean_pool", "zero_shot"]


@pytest.mark.parametrize(
    "names",
    [EACH_KIND, pytest.param([*strategies.built_in_names(), "zero_shot"], marks=pytest.mark.long)],
    ids=["one of each kind", "all"],
)
def test_strategies_and_baselines_run_deterministically(run_here: Callable, names: list[str]) -> None:
    records = run_here(strategy=names, deterministic=True, tf32=True, **SMALL)
    assert {record.strategy: record.error for record in records} == dict.fromkeys(names)


def test_stored_features_of_a_gpu_are_those_of_the_same_settings() -> None:
    prefix, _ = split(empty_backbone("mini"), strategies.load("last_block").strategy, 2)
    tensors = [""] * len(prefix.stages)
    keys: dict[str, list[str]] = {"cpu": [], "cuda": []}
    for deterministic, tf32 in ((False, False), (True, False), (False, True), (True, True)):
        apply_settings(deterministic, tf32)
        for device, found in keys.items():
            of_device = FeatureKeys.of(prefix, "", "fp32", torch.device(device), ("", ""))
            found.append(of_device.key(len(prefix.stages), tensors))
    assert len(set(keys["cuda"])) == 4
    assert len(set(keys["cpu"])) == 1, "a CPU computes the same bits"
