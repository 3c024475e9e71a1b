"""Two machines: network namespaces with addresses of their own, joined by a cable that can be cut."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.records import Store
from tests.conftest import ROOT, command, losses_of, predicted_by

pytestmark = pytest.mark.long

NAMES = ("ftbench0", "ftbench1")
MEETING = "10.77.0.1:29477"
RUN = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--precision", "fp64", "--epochs", "8"]
RUN += ["--set", "data.size=860 training.checkpoint_steps=40 engine.timeout_seconds=15 engine.restarts=1"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def cable() -> Iterator[Callable[[str], None]]:
    """Two namespaces; what it yields cuts and mends the cable between them ("down", "up")."""
    if not shutil.which("ip"):
        pytest.skip("needs iproute2's ip")
    try:
        _ip("netns", "add", NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    try:
        _ip("netns", "add", NAMES[1])
        _ip("link", "add", "ft0", "netns", NAMES[0], "type", "veth", "peer", "name", "ft1", "netns", NAMES[1])
        for number, name in enumerate(NAMES):
            _ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", f"ft{number}")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", f"ft{number}", "up")
        yield lambda state: _ip("-n", NAMES[1], "link", "set", "ft1", state)
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _start(folder: Path) -> list[subprocess.Popen]:
    started = []
    for number, name in enumerate(NAMES):
        where = ["--nnodes", "2", "--node-rank", str(number), "--rdzv", MEETING]
        arguments = ["ip", "netns", "exec", name, *command(folder, "run", *RUN, *where)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(arguments, cwd=ROOT, **pipes))
    return started


def _assert_both_end_well(processes: list[subprocess.Popen]) -> None:
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs


def test_two_hosts_give_what_one_gives(ftbench: Callable, tmp_path: Path, cable: Callable) -> None:
    assert ftbench("run", *RUN, "--nproc", "2").returncode == 0
    (tmp_path / "results").rename(tmp_path / "one")
    _assert_both_end_well(_start(tmp_path))
    (one,), (two,) = (Store(tmp_path / name).all() for name in ("one", "results"))
    assert (two.status, two.engine.world_size) == ("ok", 2)
    assert losses_of(tmp_path / "results", two) == pytest.approx(losses_of(tmp_path / "one", one), abs=1e-9)
    assert predicted_by(tmp_path / "results", two) == predicted_by(tmp_path / "one", one)


def test_a_cut_cable_ends_both_and_a_mended_one_goes_on(tmp_path: Path, cable: Callable) -> None:
    processes = _start(tmp_path)
    while not list((tmp_path / "results").glob("runs/*/checkpoints/step-*.json")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    cable("down")
    started = time.monotonic()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    print(f"both ended {time.monotonic() - started:.0f} s after the cut")
    assert all(process.returncode == 1 for process in processes), outputs
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "failed"
    assert "a rank was lost" in record.error
    cable("up")
    _assert_both_end_well(_start(tmp_path))
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "ok"
    assert record.resumed_from_step >= 40
