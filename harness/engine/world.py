"""The group of worker processes: who I am, and how values travel between ranks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """rank and size: among all; local_rank and local_size: among those on this machine."""

    rank: int
    size: int
    device: torch.device
    local_rank: int = 0
    local_size: int = 1

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


def connect() -> World:
    """Join the group that the launcher's environment describes; a single process needs none."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return World(int(os.environ.get("RANK", "0")), size, device, local_rank, local_size)


def disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_loss_of_a_rank(problem: BaseException) -> bool:
    """Whether an exchange failed because another rank is gone; gloo raises a plain RuntimeError for it."""
    told = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(problem, dist.DistError) or (
        isinstance(problem, RuntimeError) and any(words in str(problem) for words in told)
    )
