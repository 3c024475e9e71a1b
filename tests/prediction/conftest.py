"""What several of these files use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ("--model", "mini", "--data", "synthetic", "--set", "data.size=100")


@pytest.fixture
def plan(run_cli: Callable, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    return lambda *arguments: run_cli("plan", *SMALL, *arguments, "--cache", str(tmp_path / "cache"))
