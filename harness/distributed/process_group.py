"""The group of worker processes: this rank's place in it, how ranks exchange values, and where each was last."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

# Public, though torch's stubs do not re-export them.
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from harness.distributed.hosts import local_address

# How long to wait for the notes of other ranks.
STORE_TIMEOUT_SECONDS = 10.0


T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among the ranks of a run.

    rank and size: among all; local_rank and local_size: among those on this machine. restarts_left: how often the
    launcher can still restart the group. store: where ranks leave notes; None for a single process.
    """

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    local_size: int = 1
    restarts_left: int = 0
    store: Store | None = None

    @property
    def machine(self) -> int:
        """The number of this machine; all have equally many ranks."""
        return self.rank // self.local_size

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order of rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, value: T | None) -> T | None:
        """The first value over ranks that is not None, on every rank."""
        return next((one for one in self.gather(value) if one is not None), None)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        if self.size > 1:
            tensor = tensor.to(self.device, copy=True)
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> None:
        """Give the tensor the first rank's content, on every rank."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)

    def note(self, where: str) -> None:
        """Leave a note of how far this rank is, for the error message of ranks that wait for it."""
        if self.store:
            self.store.set(f"at/{self.rank}", where)

    def last_notes(self) -> str:
        """How far each rank was, as a message: one that is behind the others is the one that does not answer."""
        # In a thread: the store never answers over a connection that the network has cut.
        notes: list[str] = []
        reader = threading.Thread(target=lambda: notes.append(self._read_notes()), daemon=True)
        reader.start()
        reader.join(STORE_TIMEOUT_SECONDS)
        return notes[0] if notes else "the group's store does not answer either"

    def _read_notes(self) -> str:
        assert self.store is not None
        keys = [f"at/{rank}" for rank in range(self.size)]
        try:
            notes = [self.store.get(key).decode() if self.store.check([key]) else "its start" for key in keys]
        except (dist.DistError, RuntimeError) as problem:
            return f"the group's store is gone too ({problem})"
        return "last heard of: " + ", ".join(f"rank {rank} at {note}" for rank, note in enumerate(notes))


def device_of(local_rank: int) -> torch.device:
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def single_process() -> World:
    """The only rank, of whatever group the environment speaks."""
    return World(rank=0, size=1, device=device_of(0))


def connect(timeout_seconds: float) -> World:
    """Join the group that the launcher's environment describes.

    timeout_seconds: how long a rank waits for another in an exchange before it gives up.
    """
    local_rank = int(os.environ["LOCAL_RANK"])
    device = device_of(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    max_restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ["LOCAL_SIZE"])  # torchrun's, DeepSpeed's
    if int(os.environ["WORLD_SIZE"]) > local_size:
        # By default gloo takes the interface of the machine's own name, which others may not reach.
        _, interface = local_address(f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    timeout = timedelta(seconds=timeout_seconds)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    # torchrun's store outlives a group: without a prefix a restarted group would read addresses of dead ranks.
    store = PrefixStore(f"attempt {restarts}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=timeout)
    return World(
        rank=rank,
        size=size,
        device=device,
        local_rank=local_rank,
        local_size=local_size,
        restarts_left=max_restarts - restarts,
        store=PrefixStore("notes", store),
    )


def disconnect() -> None:
    if dist.is_initialized():
        # DeepSpeed has to forget the group, too: it would use it in place of the next one.
        sys.modules.get("deepspeed.comm", dist).destroy_process_group()


def leave(exit_code: int) -> NoReturn:
    """End this process, which was in a group and has nothing left to do, without the interpreter's shutdown.

    During shutdown the group's threads sometimes abort the process (pytorch/pytorch#190489): where parameters that
    DeepSpeed has sharded still refer to the group, or where one of gloo's only now lets go of the tensors of the last
    exchange, for which it needs the interpreter.
    """
    for child in multiprocessing.active_children():  # as the shutdown does: those that read energy never end
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def is_loss_of_a_rank(problem: BaseException) -> bool:
    """Whether an exchange failed because another rank is gone or stuck; gloo raises a plain RuntimeError then."""
    messages = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Connection timed out",
        "Broken pipe",
        "No route to host",
        "Timed out waiting",
        "Application timeout caused pair closure",
    )
    return isinstance(problem, dist.DistError) or (
        isinstance(problem, RuntimeError) and any(message in str(problem) for message in messages)
    )
