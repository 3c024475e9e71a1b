"""A Slurm controller and two workers on this machine: own key, configuration and ports, in a folder of their own.

The nodes are called by two loopback addresses, so that a job on both can be told where its first one is.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

NODES = ("127.0.0.1", "127.0.0.2")
INSTALL = "Slurm's daemons and munge: apt-get install slurm-wlm munge"

# `high` preempts `low`, whose tasks are sent SIGTERM and GraceTime seconds later killed.
_CONFIGURATION = """
ClusterName=ftbench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName=127.0.0.[1-2] NodeAddr=127.0.0.[1-2] NodeHostname=localhost Port=[{ports[1]},{ports[2]}] CPUs=1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


class NotAvailable(Exception):
    """There can be no cluster here; says why."""


@dataclass(frozen=True)
class Cluster:
    environment: dict[str, str]

    def submit(self, *arguments: str, **variables: str) -> str:
        """The id of the job that `sbatch` made of it."""
        done = self._call("sbatch", "--parsable", *arguments, **variables)
        return done.strip()

    def states(self, job: str) -> list[str]:
        """Of all tasks of a job, ended ones included."""
        told = self._call("scontrol", "--oneliner", "show", "job", job)
        return [word.removeprefix("JobState=") for word in told.split() if word.startswith("JobState=")]

    def wait_for(self, job: str, *states: str, seconds: float = 300) -> None:
        """Until every task of the job is in one of the states."""
        deadline = time.monotonic() + seconds
        while not set(found := self.states(job)) <= set(states):
            assert time.monotonic() < deadline, f"job {job} is {found} after {seconds} s, expected {states}"
            time.sleep(0.2)

    def start_now(self, job: str) -> None:
        """Slurm lets a requeued job rest for two minutes; before it has ended, it can't start again.

        A worker refuses a start in the second of the kill ("Job credential revoked"): it compares whole seconds.
        """
        deadline = time.monotonic() + 120
        while not _idle(self):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        self._call("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def signal_script(self, job: str, name: str) -> None:
        """To the job's script alone, as `#SBATCH --signal=B:` does."""
        self._call("scancel", "--batch", f"--signal={name}", job)

    def _call(self, *command: str, **variables: str) -> str:
        done = subprocess.run(
            command, env=self.environment | variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """Raises NotAvailable where it is not installed, not allowed or does not come up."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]
    if missing:
        raise NotAvailable(f"{', '.join(missing)} not found; needs {INSTALL}")
    if os.geteuid():
        raise NotAvailable("needs root: a worker starts the jobs of any user")
    with tempfile.TemporaryDirectory(prefix="ftbench-slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        cluster = Cluster(os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"})
        (folder / "slurm.conf").write_text(_CONFIGURATION.format(folder=folder, ports=_free_ports(3)))
        (folder / "state").mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o400)
        stack.callback(_end_all, cluster)
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
        options = [f"--{option}={folder / file}" for option, file in files.items()]
        _start(cluster, folder, "munged", "--foreground", "--force", *options)
        _until((folder / "munge.socket").exists, folder)
        _start(cluster, folder, "slurmctld", "-D")
        for node in NODES:
            _start(cluster, folder, "slurmd", "-D", "-N", node)
        _until(lambda: _idle(cluster), folder)
        yield cluster


def _start(cluster: Cluster, folder: Path, program: str, *options: str) -> None:
    with (folder / f"{program}.log").open("ab") as log:
        subprocess.Popen([program, *options], env=cluster.environment, stdout=log, stderr=log, start_new_session=True)


def _idle(cluster: Cluster) -> bool:
    command = ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"]
    told = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    return told.stdout.split() == ["idle"] * len(NODES)


def _until(holds, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}: {path.read_text()[-500:]}" for path in folder.glob("*.log"))
            raise NotAvailable(f"Slurm does not come up here:\n{logs}")
        time.sleep(0.2)


def _end_all(cluster: Cluster) -> None:
    """Whatever runs with this cluster's configuration: first the jobs, then the daemons."""
    subprocess.run(["scancel", "--user=root"], env=cluster.environment, capture_output=True, check=False, timeout=60)
    deadline = time.monotonic() + 60
    while not _idle(cluster) and time.monotonic() < deadline:
        time.sleep(0.2)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        members = _members(cluster)
        for member in members:
            end(member)
        psutil.wait_procs(members, timeout=30)
    assert not _members(cluster)


def _members(cluster: Cluster) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_CONF") == cluster.environment["SLURM_CONF"]:
                found.append(process)
        except psutil.Error:
            continue  # it has ended since
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [open_socket.getsockname()[1] for open_socket in sockets]
