"""Two machines: network namespaces with addresses of their own, joined by a cable."""

from __future__ import annotations

import os
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
RUN += ["--weights", "random", "--set", "data.size=860"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def cable() -> Iterator[None]:
    """Two namespaces with a cable between them."""
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
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _start(folder: Path, *options: str) -> list[subprocess.Popen]:
    started = []
    for number, name in enumerate(NAMES):
        where = ["--nnodes", "2", "--node-rank", str(number), "--rdzv", MEETING]
        arguments = ["ip", "netns", "exec", name, *command(folder, "run", *RUN, *options, *where)]
        # Each takes itself for the only one on the cores.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        pipes["env"] = os.environ | {"OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen(arguments, cwd=ROOT, **pipes))
    return started


def _assert_both_end_well(processes: list[subprocess.Popen]) -> None:
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs


@pytest.mark.usefixtures("cable")
def test_two_hosts_give_what_one_gives(ftbench: Callable, tmp_path: Path) -> None:
    assert ftbench("run", *RUN, "--nproc", "2").returncode == 0
    (tmp_path / "results").rename(tmp_path / "one")
    _assert_both_end_well(_start(tmp_path))
    (one,), (two,) = (Store(tmp_path / name).all() for name in ("one", "results"))
    assert (two.status, two.engine.world_size) == ("ok", 2)
    assert losses_of(tmp_path / "results", two) == pytest.approx(losses_of(tmp_path / "one", one), abs=1e-9)
    assert predicted_by(tmp_path / "results", two) == predicted_by(tmp_path / "one", one)


@pytest.mark.usefixtures("cable")
def test_both_hosts_end_when_the_cable_is_cut_and_go_on_when_it_is_back(ftbench: Callable, tmp_path: Path) -> None:
    options = ["--set", "engine.timeout_seconds=15 training.checkpoint_steps=40"]
    assert ftbench("run", *RUN, *options, "--nproc", "2").returncode == 0
    (tmp_path / "results").rename(tmp_path / "one")
    hosts = _start(tmp_path, *options)
    while not list((tmp_path / "results").glob("runs/*/checkpoints/step-*.json")):
        assert hosts[0].poll() is None, hosts[0].communicate()
        time.sleep(0.05)
    _ip("-n", NAMES[0], "link", "set", "ft0", "down")
    outputs = [host.communicate(timeout=120)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [1, 1], outputs
    assert all("a rank was lost" in output or "the other machines were lost" in output for output in outputs), outputs
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "failed"
    _ip("-n", NAMES[0], "link", "set", "ft0", "up")
    _assert_both_end_well(_start(tmp_path, *options))
    (one,), (two,) = (Store(tmp_path / name).all() for name in ("one", "results"))
    assert two.resumed_from_step >= 40
    assert losses_of(tmp_path / "results", two) == pytest.approx(losses_of(tmp_path / "one", one), abs=1e-9)
    assert predicted_by(tmp_path / "results", two) == predicted_by(tmp_path / "one", one)
