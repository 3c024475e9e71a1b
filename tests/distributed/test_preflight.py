"""Machines that can't work together: an unusable hostfile, or commands that ask for different things."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.schema import Hosts
from harness.distributed import hosts
from tests.support.runs import ROOT, command, records_below

LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["can't be read"]),
        ("", ["names no machine"]),
        ("localhost", ["'localhost'", "HOST slots=NUMBER"]),
        ("no-such-host.invalid slots=2\nlocalhost slots=2", ["'no-such-host.invalid'", "unknown"]),
        ("localhost slots=2", ["names 1 machine", "NNODES=2"]),
        ("localhost slots=2\n127.0.0.1 slots=1  # the small one", ["'127.0.0.1' has 1 slots", "NPROC=2"]),
    ],
    ids=repr,
)
def test_an_unusable_hostfile(refused: Callable, tmp_path: Path, content: str | None, parts: list[str]) -> None:
    path = tmp_path / "hostfile"
    if content is not None:
        path.write_text(content)
    engine = ["--engine", "deepspeed", "--nproc", "2", "--nnodes", "2"]
    told = refused(*engine, "--hostfile", str(path))
    for part in [str(path), *parts]:
        assert part in told


def test_a_hostfile_without_ssh(refused: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = _refused_hostfile(refused, tmp_path, "localhost")
    for part in ("ssh and pdsh", "apt-get install", "RDZV"):
        assert part in told


@pytest.mark.skipif(not (shutil.which("ssh") and shutil.which("pdsh")), reason="needs ssh and pdsh: apt-get install")
def test_a_machine_of_a_hostfile_that_lets_nobody_in(refused: Callable, tmp_path: Path) -> None:
    told = _refused_hostfile(refused, tmp_path, "192.0.2.1")  # an address that is nobody's (RFC 5737)
    for part in ("can't log in to '192.0.2.1' by ssh", "ssh -oBatchMode=yes 192.0.2.1 true", "RDZV"):
        assert part in told


def _refused_hostfile(refused: Callable, folder: Path, host: str) -> str:
    (folder / "hostfile").write_text(f"{host} slots=1")
    return refused("--engine", "deepspeed", "--hostfile", str(folder / "hostfile"))


def _machines(folder: Path, *each: list[str]) -> list[str]:
    """What each of several commands, which take themselves for machines of one group, says when it is refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    same = ["run", "--model", "mini", "--data", "synthetic", "--epochs", "0", "--rdzv", meeting]
    same += ["--set", "data.size=50 engine.timeout_seconds=60"]
    lines = [command(folder, *same, *options) for options in each]
    started = [subprocess.Popen(line, cwd=ROOT, stdout=-1, stderr=-1, text=True) for line in lines]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2] * len(each), said
    assert records_below(folder) == {}
    assert not any("Traceback" in told for told in said)
    return said


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        pytest.param(["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "1", "--nproc", "2"], "NPROC=", marks=LONG),
        (["--nnodes", "2"], ["--nnodes", "3", "--node-rank", "2"], "NNODES="),
        pytest.param(["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "1", "--seeds", "1"], "runs=", marks=LONG),
    ],
)
def test_machines_that_were_asked_for_different_things(
    tmp_path: Path, first: list[str], second: list[str], part: str
) -> None:
    for told in _machines(tmp_path, first, second):
        assert "can't work together" in told
        assert part in told


@LONG
def test_machines_with_the_same_number_and_one_that_does_not_come(tmp_path: Path) -> None:
    *twins, first = _machines(
        tmp_path, *[["--nnodes", "3", "--node-rank", "1"]] * 2, ["--nnodes", "3", "--node-rank", "0"]
    )
    assert all("two machines have NODE_RANK=1" in told for told in [*twins, first])
    (alone,) = _machines(tmp_path, ["--nnodes", "2", "--set", "engine.timeout_seconds=1"])
    assert "no word from the machine(s) with NODE_RANK=1" in alone
    (lost,) = _machines(tmp_path, ["--nnodes", "2", "--node-rank", "1", "--set", "engine.timeout_seconds=1"])
    assert "nobody answers there" in lost


def test_the_first_machine_may_get_its_name_later(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([OSError("unknown"), OSError("unknown"), "10.0.0.1"])
    asked = []

    def look_up(host: str) -> str:
        asked.append(host)
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    monkeypatch.setattr(hosts.time, "sleep", lambda seconds: None)
    hosts.wait_for_name(Hosts(rendezvous="job-node-0-0.job:29400"))
    assert asked == ["job-node-0-0.job"] * 3
    hosts.wait_for_name(Hosts())
