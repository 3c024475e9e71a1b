"""Runs on several machines: options are checked before any process starts."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from harness.config.schema import EngineConfig, Hosts
from harness.errors import UserError

# Never ask for a password; give up on a machine that does not answer, at the login or later.
SSH_OPTIONS = ["-oBatchMode=yes", "-oConnectTimeout=5", "-oServerAliveInterval=10"]

# A pod has a name once it has a machine, which may have to be started first.
NAME_SECONDS = 600.0

_SSH_FAILED = 255
_WITHOUT_SSH = "Or start the command on every machine, with RDZV and NODE_RANK instead of HOSTFILE."
_HOSTFILE_LINE = re.compile(r"(?P<host>\S+)\s+slots=(?P<slots>\d+)")


def check_hosts(engine: EngineConfig, hosts: Hosts) -> None:
    """Raises UserError where options of machines contradict each other, or a machine named is unknown or unusable."""
    if hosts.hostfile:
        _check_hostfile(engine, hosts.hostfile)
        return
    if engine.nodes == 1:
        if hosts.rendezvous:
            raise UserError(f"RDZV={hosts.rendezvous} with one machine: add NNODES, the number of machines.")
        if hosts.node_rank:
            raise UserError(f"NODE_RANK={hosts.node_rank} with one machine: add NNODES, the number of machines.")
        return
    if hosts.rendezvous is None:
        raise UserError(
            f"NNODES={engine.nodes} without RDZV: expected RDZV=HOST:PORT, the same on every machine, where HOST is "
            "the machine with NODE_RANK=0."
        )
    if hosts.node_rank >= engine.nodes:
        raise UserError(f"NODE_RANK={hosts.node_rank} of NNODES={engine.nodes}: expected 0 to {engine.nodes - 1}.")
    resolve(hosts.rendezvous)


def wait_for_name(hosts: Hosts) -> None:
    """Until the host of the rendezvous has an address, at most NAME_SECONDS; `check_hosts` refuses one without."""
    if hosts.rendezvous is None:
        return
    host = hosts.rendezvous.rpartition(":")[0]
    give_up = time.monotonic() + NAME_SECONDS
    while not _has_address(host) and time.monotonic() < give_up:
        time.sleep(1)


def _has_address(host: str) -> bool:
    try:
        socket.gethostbyname(host)
    except OSError:
        return False
    return True


def resolve(rendezvous: str) -> tuple[str, int]:
    """The IP address and port of HOST:PORT. Raises UserError for any other form, and for an unknown host."""
    host, colon, port = rendezvous.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(f"RDZV={rendezvous!r}: expected HOST:PORT, such as 10.0.0.1:29400.")
    return _address(host, f"RDZV={rendezvous!r}"), int(port)


def free_port() -> int:
    """Of this machine; another process may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def local_address(rendezvous: str) -> tuple[str, str]:
    """The address of this machine on the way to the rendezvous, and the network interface that has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(resolve(rendezvous))  # sends nothing: asks the routing table
        except OSError as error:
            raise UserError(f"RDZV={rendezvous!r} can't be reached from this machine: {error.strerror}.") from error
        address = probe.getsockname()[0]
    interfaces = psutil.net_if_addrs().items()
    return address, next(name for name, found in interfaces if address in {entry.address for entry in found})


def _check_hostfile(engine: EngineConfig, hostfile: Path) -> None:
    if engine.name != "deepspeed":
        raise UserError(f"HOSTFILE={hostfile}: only ENGINE=deepspeed has a launcher that reads one; else use RDZV.")
    slots = _read_hostfile(hostfile)
    for host in slots:
        _address(host, f"HOSTFILE={hostfile}")
    if len(slots) != engine.nodes:
        raise UserError(f"HOSTFILE={hostfile} names {len(slots)} machine(s), NNODES={engine.nodes}: make them equal.")
    for host, count in slots.items():
        if count < engine.processes:
            raise UserError(f"HOSTFILE={hostfile}: {host!r} has {count} slots, NPROC={engine.processes}.")
    missing = [program for program in ("ssh", "pdsh") if not shutil.which(program)]
    if missing:
        raise UserError(
            f"HOSTFILE={hostfile}: DeepSpeed's launcher needs {' and '.join(missing)}, not found here: install "
            f"it (`apt-get install openssh-client pdsh`). {_WITHOUT_SSH}"
        )
    for host in slots:
        _check_login(host, hostfile)


def _check_login(host: str, hostfile: Path) -> None:
    """DeepSpeed's launcher logs in to every machine, this one included, and runs this Python in this folder there."""
    folder, python = Path.cwd(), sys.executable
    command = ["ssh", *SSH_OPTIONS, host, f"cd {shlex.quote(str(folder))} && test -x {shlex.quote(python)}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].strip()
    if done.returncode == _SSH_FAILED:
        raise UserError(
            f"HOSTFILE={hostfile}: can't log in to {host!r} by ssh ({reason}): `ssh -oBatchMode=yes {host} true` must "
            f"work without a question. {_WITHOUT_SSH}"
        )
    if done.returncode:
        raise UserError(
            f"HOSTFILE={hostfile}: {host!r} lacks the folder {str(folder)!r} or the interpreter {python!r}, which "
            "every machine must have in the same place."
        )


def _read_hostfile(path: Path) -> dict[str, int]:
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"HOSTFILE={path} can't be read: {error}.") from error
    slots = {}
    for line in filter(None, lines):
        if not (found := _HOSTFILE_LINE.fullmatch(line)):
            raise UserError(f"HOSTFILE={path}, line {line!r}: expected `HOST slots=NUMBER`.")
        slots[found["host"]] = int(found["slots"])
    if not slots:
        raise UserError(f"HOSTFILE={path} names no machine: expected lines such as `worker-1 slots=4`.")
    return slots


def _address(host: str, given: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UserError(f"{given}: host {host!r} is unknown ({error.strerror}): check its name.") from error
