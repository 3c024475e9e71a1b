"""The device of these tests, and the runs that several of them compare with.

FTBENCH_TEST_DEVICE=cpu rehearses them on the CPU: that proves the tests' own code, not the device's.
"""

from __future__ import annotations

import os

import pytest
import torch

from strategies import built_in_names
from tests.support.device_runs import Captures, Finished, Runs, on_cpu, watched_captures

# Deterministic runs need it before the first product of the process.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """Skips where there is no GPU."""
    if os.environ.get("FTBENCH_TEST_DEVICE") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip(f"no GPU: torch.cuda.is_available() is False in PyTorch {torch.__version__}")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def shared_runs(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of the whole session: a name is given once."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of one test."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def of_cpu(shared_runs: Runs) -> dict[str, Finished]:
    """Every strategy in float32 on the CPU."""
    with on_cpu():
        return shared_runs.finished("cpu", built_in_names())


@pytest.fixture(scope="session")
def with_graphs(shared_runs: Runs, device: torch.device) -> tuple[dict[str, Finished], dict[str, Captures]]:
    """Every strategy in float32 on the device, and what of it was captured."""
    finished, captures = {}, {}
    for strategy in built_in_names():
        with watched_captures(device) as captures[strategy]:
            finished |= shared_runs.finished(f"graphs {strategy}", [strategy])
    return finished, captures


@pytest.fixture(scope="session")
def of_device(with_graphs: tuple[dict[str, Finished], dict[str, Captures]]) -> dict[str, Finished]:
    return with_graphs[0]
