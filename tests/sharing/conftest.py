"""A contribution to shared results, and the command that checks it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.config.tree import set_key
from harness.results.store import Store
from harness.sharing.contribution import MANIFEST

REVISION = "0123456789" * 4
ABOUT = f"by: a tester\nmachine: whatever runs the tests\ndate: 2026-11-28\nrevision: '{REVISION}'\nlicence: CC0-1.0\n"
NAME = "mini-here"


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one contribution."""
    folder = tmp_path_factory.mktemp("shared")
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 100, "training.epochs": 1}
    options |= {"strategy": ["head_only", "majority"], "seed": [0, 1, 2]}
    store = Store(folder / "results")
    suite = load_suite(None, options, [])
    commands.run_suite(Console(quiet=True), suite, store.results, folder / "cache", force=False)
    for record in store.all():
        run = folder / "shared" / NAME / "runs" / record.run_id
        run.mkdir(parents=True)
        shutil.copy(store.runs / record.run_id / "predictions.csv", run)
        tree = record.model_dump(mode="json")
        tree["environment"]["git"] = {"revision": REVISION, "modified": False}  # whatever the tester has changed
        (run / "record.json").write_text(json.dumps(tree))
    (folder / "shared" / NAME / MANIFEST).write_text(ABOUT)
    return folder / "shared"


@pytest.fixture
def shared(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "shared"))


@pytest.fixture
def checked(run_cli: Callable, shared: Path) -> Callable[..., tuple[int, str]]:
    """Exit code and output of the command."""

    def check(*arguments: str) -> tuple[int, str]:
        code, out, told = run_cli("check-results", str(shared), *arguments, results=None)
        assert told == ""
        return code, out

    return check


def run_of(shared: Path, name: str = "head_only", seed: int = 0) -> Path:
    (found,) = (shared / NAME / "runs").glob(f"{name}-*-s{seed}-*")
    return found


def change(run: Path, key: str, value: Any) -> None:
    """Of its record."""
    tree = json.loads((run / "record.json").read_text())
    set_key(tree, key, value)
    (run / "record.json").write_text(json.dumps(tree))
