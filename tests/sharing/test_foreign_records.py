"""Records that somebody has changed: whatever was done to one, the command lists it and goes on."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.config.tree import set_key
from harness.sharing.command import check_results
from harness.sharing.contribution import MANIFEST
from tests.support.runs import ROOT

COMMITTED = ROOT / "results" / "shared" / "mini-synthetic-2-cores"
OTHER = ROOT / "results" / "shared" / "smollm2-sms-spam-2-cores"
RUNS = ("last_block-mini-synthetic-s0", "last_block-mini-synthetic-s1", "last_block-mini-synthetic-s2", "majority")
ABSENT = object()
VALUES = (ABSENT, None, "x", "", -1, 10**400, float("nan"), [], {}, {"a": 1}, True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parts of two committed contributions."""
    folder = tmp_path_factory.mktemp("shared")
    for source, name, runs in ((COMMITTED, "first", RUNS), (OTHER, "second", "majority")):
        for path in source.glob("runs/*"):
            if path.name.startswith(runs):
                shutil.copytree(path, folder / name / "runs" / path.name)
        shutil.copy(source / MANIFEST, folder / name)
    assert _checked(folder, write=True)[0] == 0
    return folder


@pytest.fixture(scope="module")
def record(shared: Path) -> Path:
    (path,) = (shared / "first" / "runs").glob(f"{RUNS[0]}-*/record.json")
    return path


def _checked(folder: Path, write: bool = False) -> tuple[int, str]:
    """Exit code and output of the command."""
    console = Console(width=400, record=True, file=io.StringIO())
    code = check_results(console, folder, write)
    return code, console.export_text()


def _changed(shared: Path, record: Path, tree: dict[str, Any]) -> tuple[int, str]:
    before = record.read_text()
    try:
        record.write_text(json.dumps(tree))
        return _checked(shared)
    finally:
        record.write_text(before)


def _places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every leaf, part and first item of a list."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree[:1]):
            yield (*at, key)
            yield from _places(value, (*at, key))


def _with(tree: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    part: Any = tree
    for key in place[:-1]:
        part = part[key]
    if value is ABSENT:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return tree


PLACES = list(_places(json.loads(next(COMMITTED.glob(f"runs/{RUNS[0]}-*/record.json")).read_text())))


@settings(max_examples=60)
@given(st.sampled_from(PLACES), st.sampled_from(VALUES))
def test_no_leaf_ends_the_command(shared: Path, record: Path, place: tuple[Any, ...], value: Any) -> None:
    code, out = _changed(shared, record, _with(json.loads(record.read_text()), place, value))
    assert code in (0, 1)
    assert "second: ok, 1 runs" in out


@pytest.mark.long
def test_no_leaf_at_all_ends_the_command(shared: Path, record: Path) -> None:
    tree = json.loads(record.read_text())
    for place in PLACES:
        for value in (ABSENT, None, "x", {}):
            assert "second: ok, 1 runs" in _changed(shared, record, _with(tree, place, value))[1], (place, value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.name", "gpt2", "model.name is gpt2, but that of the configuration is mini"),
        ("model.name", None, "model.name is None, but"),
        ("model.weights", "random", "model.weights is random, but"),
        ("data.name", "sms_spam", "data.name is sms_spam, but that of the configuration is synthetic"),
        ("engine.name", "deepspeed", "engine.name is deepspeed, but that of the configuration is ddp"),
        ("engine.name", None, "engine.name is None, but"),
        ("engine.zero_stage", 2, "engine.zero_stage is 2, but"),
        ("engine.world_size", 8, "engine.world_size is 8, but that of the configuration is 1"),
        ("precision", "bf16", "precision is bf16, but that of the configuration is fp32"),
        ("readout", None, "readout is None: expected one of a strategy"),
        ("config.data", None, "config.data: "),
        ("config.model", None, "config.model: "),
        ("config.data", {}, "can't be checked (KeyError: 'name')"),
        ("data.sizes", {"train": 2100, "validation": 300}, "data.sizes lacks test"),
        ("memory", None, "memory is missing"),
        ("throughput", None, "throughput or step_milliseconds is missing"),
        ("throughput.examples_per_second", None, "throughput or step_milliseconds is missing"),
        ("step_milliseconds.p50", None, "throughput or step_milliseconds is missing"),
        ("joint_runs", 1, "joint_runs is 1: expected 2 or more"),
        ("metrics.test_clean", None, "metrics.test_clean is missing"),
        ("metrics.train.f1", {}, "metrics.train.f1 is of"),
        ("metrics.train.f1.ham", -1, "metrics.train.f1.ham is -1"),
        ("metrics.validation.roc_auc", 1.5, "metrics.validation.roc_auc is 1.5: no such score is possible"),
        ("metrics.test_clean.mcc", -2, "metrics.test_clean.mcc is -2"),
        ("metrics.validation.macro_f1", None, "some metrics lack macro_f1"),
        ("metrics.test.roc_auc", None, "metrics.test.roc_auc is None, but predictions.csv gives"),
        ("metrics.train_batches.accuracy", 0.5, "metrics.train_batches.accuracy is 0.5, but"),
        ("data.cut_texts", -1, "data.cut_texts is -1, below 0"),
        ("energy.watt_hours", -1, "energy.watt_hours is -1.0, below 0"),
        ("model.parameters", None, "trained parameters of None"),
        ("calibration.temperature", None, "calibration has neither a temperature nor the reason"),
        ("forgetting", {}, "forgetting has neither losses nor the reason"),
        ("finished_at", "yesterday", "finished_at is 'yesterday', not a time"),
        ("environment.git", None, "1 runs are of revision 0.1.0, not "),
        ("environment.git", "x", "environment.git: "),
        ("environment.git", {"revision": "f" * 40}, "environment.git.modified: Field required"),
        ("environment.jobs", None, "environment.jobs: "),
        ("environment.ram_bytes", None, "environment.ram_bytes: "),
        ("environment.versions", {}, "environment.versions.ftbench: Field required"),
    ],
)
def test_a_contradiction_is_named_with_its_record(shared: Path, record: Path, key: str, value: Any, told: str) -> None:
    tree = json.loads(record.read_text())
    set_key(tree, key, value)
    code, out = _changed(shared, record, tree)
    assert code == 1
    assert told in out
    assert f"  {record.parent.name}: " in out or "1 runs are of" in out


def test_installed_code_is_of_the_version_that_the_contribution_names(shared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared, tmp_path / "installed"))
    for path in folder.glob("first/runs/*/record.json"):
        tree = json.loads(path.read_text())
        tree["environment"]["git"] = None
        path.write_text(json.dumps(tree))
    about = folder / "first" / MANIFEST
    lines = [line for line in about.read_text().splitlines() if not line.startswith("revision")]
    about.write_text("\n".join([*lines, "revision: 0.2.0"]))
    assert "4 runs are of revision 0.1.0, not 0.2.0" in _checked(folder)[1]
    about.write_text("\n".join([*lines, "revision: 0.1.0"]))
    assert _checked(folder, write=True)[0] == 0
