"""A group of ranks that somebody else has started: torchrun, or any launcher that sets its variables.

Each of its processes gives the same command. The first rank does what the command does; the others follow it: they wait
for its plans and take part in their runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.config.schema import ONE_MACHINE, EngineConfig, Hosts, RunConfig
from harness.config.suite import SuiteConfig
from harness.distributed.process_group import World, connect, disconnect, leave
from harness.errors import UserError
from harness.experiment.runner import RankLost
from harness.launch.worker import work_in
from harness.planning.plan import Plan
from harness.planning.workspace import Workspace

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class GivenGroup:
    """rank: of this process. processes: ranks on each machine. rendezvous: HOST:PORT where they meet."""

    rank: int
    processes: int
    nodes: int
    rendezvous: str

    @property
    def hosts(self) -> Hosts:
        """How the machines find each other; a group on one has nothing to find."""
        if self.nodes == 1:
            return ONE_MACHINE
        return Hosts(node_rank=self.rank // self.processes, rendezvous=self.rendezvous)

    def check_alone(self, hosts: Hosts, jobs: str) -> None:
        """Raises UserError where the command asks for machines or workers beside the group."""
        if hosts != ONE_MACHINE:
            raise UserError("RDZV, NODE_RANK or HOSTFILE in a group of ranks that is running already: leave them out.")
        if jobs != "1":
            raise UserError(f"JOBS={jobs} in a group of ranks that is running already: leave it out.")

    def taken_over(self, suite: SuiteConfig) -> SuiteConfig:
        """The suite with the group's ranks. Raises UserError where it asks for others."""

        def taken(run: RunConfig) -> RunConfig:
            engine = run.engine
            if (engine.processes, engine.nodes) not in ((1, 1), (self.processes, self.nodes)):
                raise UserError(
                    f"NPROC={engine.processes}, NNODES={engine.nodes} in a group of {self.processes} ranks on each of "
                    f"{self.nodes} machine(s) that is running already: leave both out, or start as many ranks."
                )
            given = {"processes": self.processes, "nodes": self.nodes}
            return run.model_copy(update={"engine": engine.model_copy(update=given)})

        rows = [row.model_copy(update={"runs": [taken(run) for run in row.runs]}) for row in suite.rows]
        return suite.model_copy(update={"rows": rows})


def given_group(environment: Mapping[str, str]) -> GivenGroup | None:
    """The group that this process was started in; None where it is alone.

    Raises UserError where variables of a group are missing, or are no numbers.
    """
    if _number(environment, "WORLD_SIZE", default="1") == 1:
        return None
    missing = [name for name in VARIABLES if not environment.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} without {', '.join(missing)}: a launcher such as torchrun sets "
            f"{', '.join(VARIABLES)}; without one leave WORLD_SIZE out, and use NPROC."
        )
    numbers = {name: _number(environment, name) for name in VARIABLES if name != "MASTER_ADDR"}
    rank, size, processes = (numbers[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if not processes or size % processes:
        raise UserError(
            f"WORLD_SIZE={size} with LOCAL_WORLD_SIZE={processes}: every machine must have as many ranks as the others."
        )
    if rank >= size or numbers["LOCAL_RANK"] >= processes:
        raise UserError(
            f"RANK={rank} of WORLD_SIZE={size}, LOCAL_RANK={numbers['LOCAL_RANK']} of LOCAL_WORLD_SIZE={processes}: "
            "ranks count from 0, so each must be below its size."
        )
    rendezvous = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    return GivenGroup(rank, processes, size // processes, rendezvous)


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    given = environment.get(name) or default
    if not given.isdecimal():
        raise UserError(f"{name}={given!r} in the environment: expected a whole number, as torchrun sets it.")
    return int(given)


def asked_of_torchrun(environment: Mapping[str, str]) -> tuple[dict[str, int], Hosts] | None:
    """What torchrun's own variables (PET_..., as Kubeflow's trainer sets them) ask for: keys of `engine`, and how the
    machines find each other; None where they are not set, or ask for one process.

    Raises UserError where they are no numbers.
    """
    nodes, processes = (environment.get(f"PET_{name}", "1") for name in ("NNODES", "NPROC_PER_NODE"))
    if processes == "auto":
        processes = "gpu" if torch.cuda.is_available() else "cpu"
    if processes in ("cpu", "gpu"):  # as torchrun takes them
        processes = str(torch.cuda.device_count() if processes == "gpu" else os.cpu_count())
    if not (nodes.isdecimal() and processes.isdecimal()):
        raise UserError(
            f"PET_NNODES={nodes!r}, PET_NPROC_PER_NODE={processes!r}: expected numbers of machines and of ranks on "
            "each, or auto, cpu or gpu."
        )
    if int(nodes) * int(processes) == 1:
        return None
    address, port = (environment.get(f"PET_MASTER_{part}") for part in ("ADDR", "PORT"))
    rendezvous = f"{address}:{port or 29400}" if address and int(nodes) > 1 else None
    hosts = Hosts(node_rank=_number(environment, "PET_NODE_RANK", default="0"), rendezvous=rendezvous)
    return {"processes": int(processes), "nodes": int(nodes)}, hosts


class Leader:
    """The first rank of a given group: it hands its plans to the others."""

    def __init__(self, engine: EngineConfig) -> None:
        self._world = connect(engine.timeout_seconds)
        self._is_whole = True

    def launch(self, plan: Plan, workspace: Workspace) -> None:
        """As `harness.launch.launcher.launch`. A lost rank ends this process: its launcher may start the group anew."""
        _shared(self._world, plan.model_dump_json())
        try:
            work_in(self._world, plan, workspace)
        except KeyboardInterrupt:  # the others have stopped, too
            self._is_whole = False
            raise
        except RankLost:
            leave(1)

    def dismiss(self, exit_code: int) -> None:
        """Let the others go, each with this exit code."""
        if self._is_whole:
            _shared(self._world, exit_code)
        disconnect()


def follow(engine: EngineConfig) -> int:
    """Take part in the first rank's plans until it lets this one go; returns the exit code."""
    world = connect(engine.timeout_seconds)
    try:
        while not isinstance(received := _shared(world, None), int):
            plan = Plan.model_validate_json(received)
            work_in(world, plan, Workspace(plan.cache, plan.features))
    except (KeyboardInterrupt, RankLost):
        leave(1)
    disconnect()
    return received


def _shared(world: World, value: Any) -> Any:
    """The first rank's value, on every rank."""
    return world.gather(value)[0]
