"""Where rows of tokens and stored features lie: on the device where they fit there, else on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.measure.memory import free_bytes

# Of the device's memory that is free when the rows are opened: the rest is for the model and its training.
LARGEST_SHARE = 0.25


def resident(flat: Tensor, device: torch.device) -> Tensor:
    """`flat` on `device`, where it takes at most LARGEST_SHARE of its free memory; else as it is."""
    if flat.device == device or flat.nbytes > LARGEST_SHARE * free_bytes(device):
        return flat
    return flat.to(device)
