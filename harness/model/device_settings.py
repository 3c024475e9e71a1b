"""Switches of PyTorch that hold for the process and decide how a device computes: set at the start of each run."""

from __future__ import annotations

import torch


def apply_settings(deterministic: bool, tf32: bool) -> None:
    """Overwrites those of the run before.

    deterministic: only algorithms that give the same bits each time; an operation that has none is an error. On a GPU
    cuBLAS needs a fixed workspace for that (`harness/launch/libraries.py`).
    tf32: a GPU multiplies float32 with ten bits of mantissa; nothing changes on a CPU.
    """
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    # cuDNN plans its attention anew for each shape, which takes hundreds of milliseconds in a step.
    torch.backends.cuda.enable_cudnn_sdp(False)


def settings_in_force(device: torch.device) -> tuple[str, ...]:
    """The names of those that change the bits of what a device of this type computes."""
    if device.type == "cpu":
        return ()
    in_force = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }
    return tuple(name for name, is_on in in_force.items() if is_on)
