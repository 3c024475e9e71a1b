"""A saved classifier."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.runs import run_command

SIZE = 200


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    options = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--epochs", "1"]
    run_command(folder, "run", "--save", *options, "--set", f"data.size={SIZE}")
    return folder / "results"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """The folder of a classifier, among the results of its run."""
    return Path(shutil.copytree(trained_once, tmp_path / "results")) / "classifier"
