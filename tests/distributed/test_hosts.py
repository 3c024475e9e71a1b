"""Two machines: network namespaces with addresses of their own, joined by a cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.results.store import Store
from tests.support.runs import ROOT, command, losses_of, predicted_by

pytestmark = pytest.mark.long

NAMES = ("ftbench0", "ftbench1")
MEETING = "10.77.0.1:29477"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SMALL = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--weights", "random"]
RUN = [*SMALL, "--precision", "fp64", "--epochs", "8", "--set", "data.size=860"]


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
            _ip("-n", name, "address", "add", f"{ADDRESSES[number]}/24", "dev", f"ft{number}")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", f"ft{number}", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def hostfile(cable: None, tmp_path: Path) -> Iterator[Path]:
    """A hostfile of both machines. Each lets in who holds the test's key, and has processes of its own."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not (sshd and shutil.which("pdsh")):
        pytest.skip("needs sshd and pdsh: apt-get install openssh-server pdsh")
    for key in ("machine", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    settings = [f"HostKey {tmp_path / 'machine'}", f"AuthorizedKeysFile {tmp_path / 'user.pub'}", "StrictModes no"]
    (tmp_path / "sshd").write_text("\n".join([*settings, "PidFile none", "UsePAM no", ""]))
    settings = ["Host *", f"IdentityFile {tmp_path / 'user'}", "StrictHostKeyChecking no"]
    (tmp_path / "ssh").write_text("\n".join([*settings, "UserKnownHostsFile /dev/null", "LogLevel ERROR", ""]))
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path / "ssh"} "$@"\n')
    wrapper.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it
    # DeepSpeed's launcher ends processes by their name: it must see none but those of its machine.
    machine = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    daemons = [
        subprocess.Popen(["ip", "netns", "exec", name, *machine, sshd, "-D", "-f", tmp_path / "sshd"]) for name in NAMES
    ]
    path = tmp_path / "hosts.txt"
    path.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    try:
        yield path
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()


def _start_by_hostfile(hostfile: Path, *options: str) -> subprocess.Popen:
    """DeepSpeed's launcher on the first machine."""
    engine = ["--engine", "deepspeed", "--zero", "2", "--precision", "fp32", "--hostfile", str(hostfile)]
    arguments = ["ip", "netns", "exec", NAMES[0], *command(hostfile.parent, "run", *SMALL, *engine, *options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{hostfile.parent / 'bin'}:{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, **pipes)


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
    for output in outputs:
        told = " ".join(output.split())  # whatever the width that lines are broken at
        assert "a rank was lost" in told or "the other machines were lost" in told, output
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "failed"
    _ip("-n", NAMES[0], "link", "set", "ft0", "up")
    _assert_both_end_well(_start(tmp_path, *options))
    (one,), (two,) = (Store(tmp_path / name).all() for name in ("one", "results"))
    assert two.resumed_from_step >= 40
    assert losses_of(tmp_path / "results", two) == pytest.approx(losses_of(tmp_path / "one", one), abs=1e-9)
    assert predicted_by(tmp_path / "results", two) == predicted_by(tmp_path / "one", one)


def test_a_hostfile_gives_what_one_process_gives(ftbench: Callable, hostfile: Path, tmp_path: Path) -> None:
    size = ["--epochs", "1", "--set", "data.size=120"]
    assert ftbench("run", *SMALL, "--precision", "fp32", *size).returncode == 0
    (tmp_path / "results").rename(tmp_path / "one")
    launcher = _start_by_hostfile(hostfile, "--nnodes", "2", *size)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    (one,), (two,) = (Store(tmp_path / name).all() for name in ("one", "results"))
    assert (two.status, two.engine.world_size, two.engine.zero_stage) == ("ok", 2, 2)
    assert losses_of(tmp_path / "results", two) == pytest.approx(losses_of(tmp_path / "one", one), abs=1e-5)
    assert predicted_by(tmp_path / "results", two) == predicted_by(tmp_path / "one", one)


def test_ctrl_c_ends_the_ranks_of_a_hostfile_and_the_same_command_goes_on(hostfile: Path, tmp_path: Path) -> None:
    options = ["--nnodes", "2", "--epochs", "2", "--set", "training.checkpoint_steps=20"]
    launcher = _start_by_hostfile(hostfile, *options)
    while not list((tmp_path / "results").glob("runs/*/checkpoints/step-*.json")):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 1, output
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "interrupted"
    launcher = _start_by_hostfile(hostfile, *options)
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    (record,) = Store(tmp_path / "results").all()
    assert (record.status, record.resumed_from_step >= 20) == ("ok", True)


def test_the_only_machine_of_a_hostfile_does_the_run(hostfile: Path, tmp_path: Path) -> None:
    hostfile.write_text(f"{ADDRESSES[1]} slots=1\n")
    launcher = _start_by_hostfile(hostfile, "--nnodes", "1", "--epochs", "0")
    output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    assert f"{ADDRESSES[1]}: " in output, "pdsh names the machine that says a line"
    (record,) = Store(tmp_path / "results").all()
    assert (record.status, record.engine.world_size) == ("ok", 1)
