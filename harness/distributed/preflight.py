"""Before any rank starts, all machines of a run check that they were started with the same request."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import torch.distributed as dist

# Public, though torch's stubs do not re-export it.
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from harness.config.schema import EngineConfig, Hosts
from harness.distributed.hosts import resolve
from harness.errors import UserError

# How long one attempt to connect takes, and between two looks at the store; Ctrl-C is handled in between.
CONNECT_SECONDS = 2.0
POLL_SECONDS = 0.1
# How long the first machine, which holds the store, stays for the others to read it.
LINGER_SECONDS = 10.0

Request = dict[str, int | str]


def run_preflight(engine: EngineConfig, hosts: Hosts, runs: str) -> None:
    """Wait until all machines have come, and compare what they were asked to do.

    runs: what identifies the runs.
    Raises UserError where requests differ, where two machines have the same number, and where one does not come within
    `engine.timeout_seconds`.
    """
    deadline = time.monotonic() + engine.timeout_seconds
    request: Request = {"NNODES": engine.nodes, "NPROC": engine.processes, "runs": runs}
    store = _open(hosts, deadline)
    try:
        store.add("came", 1)
        if store.add(f"number/{hosts.node_rank}", 1) > 1:
            store.set("problem", f"two machines have NODE_RANK={hosts.node_rank}")
        store.set(f"machine/{hosts.node_rank}", json.dumps(request))
        while not _all_have_come(store, request, engine, hosts):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{_missing(store, engine)} after engine.timeout_seconds: start the same command there, and check "
                    "that it reaches RDZV."
                )
            time.sleep(POLL_SECONDS)
    except RuntimeError as error:  # the store raises no more specific one
        raise UserError(f"RDZV={hosts.rendezvous}: the first machine is gone; read what it says.") from error
    finally:
        _leave(store, hosts)


def _open(hosts: Hosts, deadline: float) -> TCPStore:
    """The store of the first machine, at the rendezvous; torchrun takes the port over afterwards."""
    assert hosts.rendezvous is not None, "check_hosts"
    address, port = resolve(hosts.rendezvous)
    first, timeout = hosts.node_rank == 0, timedelta(seconds=CONNECT_SECONDS)
    while True:
        try:
            return TCPStore(address, port, is_master=first, timeout=timeout, wait_for_workers=False)
        except dist.DistError as error:
            if first:
                raise UserError(f"RDZV={hosts.rendezvous}: this machine can't listen there ({error}).") from error
            if time.monotonic() > deadline:
                raise UserError(
                    f"RDZV={hosts.rendezvous}: nobody answers there: start the same command with NODE_RANK=0 on that "
                    "machine, and check that the port can be reached."
                ) from error


def _all_have_come(store: TCPStore, request: Request, engine: EngineConfig, hosts: Hosts) -> bool:
    """Raises UserError, on every machine, where two were asked for different things."""
    present = [rank for rank in range(engine.nodes) if store.check([f"machine/{rank}"])]
    for rank in present:
        other: Request = json.loads(store.get(f"machine/{rank}"))
        different = [f"{key}={other[key]} and {value}" for key, value in request.items() if other[key] != value]
        if different:
            numbers = f"NODE_RANK={rank} and {hosts.node_rank}"
            store.set("problem", f"{numbers} were asked for different things: {', '.join(different)}")
    if store.check(["problem"]):
        problem = store.get("problem").decode()
        raise UserError(f"the machines can't work together: {problem}. Give all the same command, but for NODE_RANK.")
    return len(present) == engine.nodes


def _missing(store: TCPStore, engine: EngineConfig) -> str:
    missing = [str(rank) for rank in range(engine.nodes) if not store.check([f"machine/{rank}"])]
    return f"no word from the machine(s) with NODE_RANK={','.join(missing)}"


def _leave(store: TCPStore, hosts: Hosts) -> None:
    """The first machine leaves last: the store is gone with it."""
    try:
        store.add("left", 1)
        until = time.monotonic() + LINGER_SECONDS
        while hosts.node_rank == 0 and store.add("left", 0) < store.add("came", 0) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
    except RuntimeError:
        return  # the first machine, and the store with it, is gone already
