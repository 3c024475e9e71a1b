"""In which type numbers are stored and multiplied.

`bf16`: trained parameters, their optimizer state, the residual stream, the head and the loss stay float32; matrix
products and attention run in bfloat16, on a CPU but for those of few rows with trained matrices; frozen matrices are
stored once in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from harness.config.schema import Precision

# Whether a device has units for bfloat16, and the reason why it is taken or not.
Units = Callable[[], tuple[bool, str]]


def units_at_hand() -> tuple[bool, str]:
    """Of this machine."""
    if torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported, "the GPU has it" if supported else "the GPU has no bfloat16"
    features = torch.cpu.get_capabilities()
    units = [name for name in ("amx_bf16", "avx512_bf16") if features.get(name)]
    return bool(units), f"the processor has {units[0]}" if units else "the processor has no bfloat16 units"


def choose(precision: Precision, model: str, units: Units = units_at_hand) -> tuple[Precision, str]:
    """What `auto` stands for on a device with these units, and why."""
    if precision != "auto":
        return precision, "as asked"
    if model == "mini":
        return "fp32", "auto: the mini model's matrices are too small to gain from bfloat16"
    has, why = units()
    return "bf16" if has else "fp32", f"auto: {why}"


def parameter_dtype(precision: Precision) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def store_frozen(module: nn.Module, precision: Precision) -> None:
    """Store the matrices of Linear layers that are not trained in bfloat16, where that is what they are used in."""
    if precision != "bf16":
        return
    for part in module.modules():
        if isinstance(part, nn.Linear):
            for parameter in (part.weight, part.bias):
                if parameter is not None and not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()


class InPrecision(nn.Module):
    """A suffix, placed on the device and stored and computed in `precision`; what engines wrap."""

    def __init__(self, suffix: nn.Module, precision: Precision, device: torch.device) -> None:
        super().__init__()
        self.suffix = suffix.to(device, parameter_dtype(precision))
        store_frozen(suffix, precision)
        self.precision: Precision = precision
        self.device = device

    def forward(self, *inputs: object) -> torch.Tensor:
        with compute_context(self.precision, self.device):
            return self.suffix(*inputs)


def compute_context(precision: Precision, device: torch.device) -> AbstractContextManager:
    # A captured step must not use what another one has cast.
    cache = device.type != "cuda"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=cache)
