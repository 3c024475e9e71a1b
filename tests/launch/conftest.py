"""What ways of starting ranks are compared with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.runs import SMALL_RUN, command


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of SMALL_RUN with NPROC=2."""
    folder = tmp_path_factory.mktemp("asked")
    subprocess.run(command(folder, "run", *SMALL_RUN, "--nproc=2"), capture_output=True, check=True)
    return folder / "results"
