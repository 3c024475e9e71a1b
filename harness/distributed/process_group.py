"""The group of worker processes: who I am, how values travel between ranks, and who was last heard of where."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from harness.distributed.hosts import local_address

STORE_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class World:
    """rank and size: among all; local_rank and local_size: among those on this machine.

    restarts_left: how often the launcher would still start the group anew. store: what ranks leave notes in.
    """

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    local_size: int = 1
    restarts_left: int = 0
    store: dist.Store | None = None

    @property
    def machine(self) -> int:
        """Which of the group's machines this is; all have equally many ranks."""
        return self.rank // self.local_size

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        if self.size > 1:
            tensor = tensor.to(self.device, copy=True)
            dist.all_reduce(tensor)
        return tensor

    def note(self, where: str) -> None:
        """Leave word of where this rank is, for those who would wait for it in vain."""
        if self.store:
            self.store.set(f"at/{self.rank}", where)

    def last_notes(self) -> str:
        """Where each rank was last heard of: a rank that is behind the others is the one that does not answer."""
        # In a thread: over a connection that the network has cut, the store's answer never comes.
        answer: list[str] = []
        asking = threading.Thread(target=lambda: answer.append(self._ask_for_notes()), daemon=True)
        asking.start()
        asking.join(STORE_PATIENCE_SECONDS)
        return answer[0] if answer else "the group's store does not answer either"

    def _ask_for_notes(self) -> str:
        assert self.store is not None
        keys = [f"at/{rank}" for rank in range(self.size)]
        try:
            notes = [self.store.get(key).decode() if self.store.check([key]) else "its start" for key in keys]
        except (dist.DistError, RuntimeError) as problem:
            return f"the group's store is gone too ({problem})"
        return "last heard of: " + ", ".join(f"rank {rank} at {note}" for rank, note in enumerate(notes))


def device_of(local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def connect(timeout_seconds: float) -> World:
    """Join the group that the launcher's environment describes.

    timeout_seconds: how long a rank waits for another in an exchange before it gives up.
    """
    local_rank = int(os.environ["LOCAL_RANK"])
    device = device_of(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    restarts, most_restarts = (
        int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    timeout = timedelta(seconds=timeout_seconds)
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ["LOCAL_SIZE"])  # torchrun's, DeepSpeed's
    if int(os.environ["WORLD_SIZE"]) > local_size:
        # Else gloo takes the interface that the machine's own name points to, which others may not reach.
        _, interface = local_address(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"attempt {restarts}", store)  # it outlives a group, with the addresses of the dead
    backend = "nccl" if device.type == "cuda" else "gloo"
    of_group = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=of_group, rank=rank, world_size=size, timeout=timeout)
    return World(
        rank=rank,
        size=size,
        device=device,
        local_rank=local_rank,
        local_size=local_size,
        restarts_left=most_restarts - restarts,
        store=dist.PrefixStore("notes", store),
    )


def disconnect() -> None:
    if dist.is_initialized():
        # DeepSpeed would use its memory of this group in the next one.
        sys.modules.get("deepspeed.comm", dist).destroy_process_group()


def leave(exit_code: int) -> NoReturn:
    """End this process, which has nothing left to do, without taking the interpreter down.

    What still refers to a group then, such as parameters that DeepSpeed has sharded, would now and then make its
    threads abort the process (pytorch/pytorch#190489).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def is_loss_of_a_rank(problem: BaseException) -> bool:
    """Whether an exchange failed because another rank is gone or stuck; gloo raises a plain RuntimeError for it."""
    told = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Connection timed out",
        "Broken pipe",
        "No route to host",
        "Timed out waiting",
        "Application timeout caused pair closure",
    )
    return isinstance(problem, dist.DistError) or (
        isinstance(problem, RuntimeError) and any(words in str(problem) for words in told)
    )
