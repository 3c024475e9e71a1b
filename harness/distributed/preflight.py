"""Several machines meet before any of them starts its ranks, and see that all were asked for the same."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import torch.distributed as dist

from harness.config.schema import EngineConfig, Hosts
from harness.distributed.hosts import resolve
from harness.errors import UserError

# A connection is tried, and others are looked for, this often: in between Ctrl-C is heard.
TRY_SECONDS = 2.0
LOOK_SECONDS = 0.1
# How long the first machine, at which all meet, stays for the others to read what there is.
FAREWELL_SECONDS = 10.0


def meet(engine: EngineConfig, hosts: Hosts, runs: str) -> None:
    """Wait for all machines; runs: what tells apart what they were asked to do.

    Raises UserError where one was asked for something else, where two have the same number, and where one does not come
    within `engine.timeout_seconds`.
    """
    deadline = time.monotonic() + engine.timeout_seconds
    mine = {"NNODES": engine.nodes, "NPROC": engine.processes, "runs": runs}
    store = _open(hosts, deadline)
    try:
        store.add("came", 1)
        if store.add(f"number/{hosts.node_rank}", 1) > 1:
            store.set("problem", f"two machines have NODE_RANK={hosts.node_rank}")
        store.set(f"machine/{hosts.node_rank}", json.dumps(mine))
        while not _all_are_here(store, mine, hosts):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{_missing(store, engine)} after engine.timeout_seconds: start the same command there, and check "
                    "that it reaches RDZV."
                )
            time.sleep(LOOK_SECONDS)
    except RuntimeError as error:  # what the store raises is one
        raise UserError(f"RDZV={hosts.rendezvous}: the first machine is gone; read what it says.") from error
    finally:
        _leave(store, hosts)


def _open(hosts: Hosts, deadline: float) -> dist.TCPStore:
    """The store that the first machine offers at the rendezvous; torchrun takes the port over afterwards."""
    address, port = resolve(hosts.rendezvous)
    first, timeout = hosts.node_rank == 0, timedelta(seconds=TRY_SECONDS)
    while True:
        try:
            return dist.TCPStore(address, port, is_master=first, timeout=timeout, wait_for_workers=False)
        except dist.DistError as error:
            if first:
                raise UserError(f"RDZV={hosts.rendezvous}: this machine can't listen there ({error}).") from error
            if time.monotonic() > deadline:
                raise UserError(
                    f"RDZV={hosts.rendezvous}: nobody answers there: start the same command with NODE_RANK=0 on that "
                    "machine, and check that the port can be reached."
                ) from error


def _all_are_here(store: dist.TCPStore, mine: dict[str, object], hosts: Hosts) -> bool:
    """Raises UserError, on every machine, where two were asked for different things."""
    here = [rank for rank in range(int(mine["NNODES"])) if store.check([f"machine/{rank}"])]
    for rank in here:
        theirs = json.loads(store.get(f"machine/{rank}"))
        different = [f"{what}={theirs[what]} and {value}" for what, value in mine.items() if theirs[what] != value]
        if different:
            numbers = f"NODE_RANK={rank} and {hosts.node_rank}"
            store.set("problem", f"{numbers} were asked for different things: {', '.join(different)}")
    if store.check(["problem"]):
        problem = store.get("problem").decode()
        raise UserError(f"the machines can't work together: {problem}. Give all the same command, but for NODE_RANK.")
    return len(here) == mine["NNODES"]


def _missing(store: dist.TCPStore, engine: EngineConfig) -> str:
    missing = [str(rank) for rank in range(engine.nodes) if not store.check([f"machine/{rank}"])]
    return f"no word from the machine(s) with NODE_RANK={','.join(missing)}"


def _leave(store: dist.TCPStore, hosts: Hosts) -> None:
    """The first machine goes last."""
    try:
        store.add("left", 1)
        until = time.monotonic() + FAREWELL_SECONDS
        while hosts.node_rank == 0 and store.add("left", 0) < store.add("came", 0) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
    except RuntimeError:
        return  # the first machine is gone already: there is nobody to tell
