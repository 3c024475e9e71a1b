"""Switches of PyTorch that hold for the process and decide how a device computes: set at the start of each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import backends


def apply_settings(deterministic: bool, tf32: bool) -> None:
    """Overwrites those of the run before.

    deterministic: only algorithms that give the same bits each time; an operation that has none is an error. On a GPU
    cuBLAS needs a fixed workspace for that (`harness/launch/libraries.py`).
    tf32: a GPU multiplies float32 with ten bits of mantissa; nothing changes on a CPU.
    """
    torch.use_deterministic_algorithms(deterministic)
    backends.cuda.matmul.allow_tf32 = tf32
    backends.cudnn.allow_tf32 = tf32
    # cuDNN plans its attention anew for each shape, which takes hundreds of milliseconds in a step.
    backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def settings_kept() -> Iterator[None]:
    """On leaving, what `apply_settings` sets is as before."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_sdp = backends.cuda.cudnn_sdp_enabled()
    # PyTorch has two interfaces to TF32: the older one can't be read where the newer one has set parts differently.
    of_matmul, of_cudnn = _read(lambda: backends.cuda.matmul.allow_tf32), _read(lambda: backends.cudnn.allow_tf32)
    precision = _read(torch.get_float32_matmul_precision)
    of: Any = backends  # whose newer parts have no types
    parts = [of.cuda.matmul, of.cudnn.conv, of.cudnn.rnn, of.mkldnn.matmul]
    of_parts = [part.fp32_precision for part in parts]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        backends.cuda.enable_cudnn_sdp(cudnn_sdp)
        if of_matmul is not None:
            backends.cuda.matmul.allow_tf32 = of_matmul
        if of_cudnn is not None:
            backends.cudnn.allow_tf32 = of_cudnn
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for part, before in zip(parts, of_parts, strict=True):
            if part.fp32_precision != before:
                part.fp32_precision = before


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return None


def settings_in_force(device: torch.device) -> tuple[str, ...]:
    """The names of those that change the bits of what a device of this type computes."""
    if device.type == "cpu":
        return ()
    in_force = {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": backends.cuda.matmul.allow_tf32,
    }
    return tuple(name for name, is_on in in_force.items() if is_on)
