"""Environment variables that PyTorch's libraries read once, when they are loaded: set before, unless the user has.

How OpenMP's threads wait for each other: by default they spin. Where several commands or ranks share cores, threads
that spin keep others from working, and every one of them slows down many times.

In which workspace cuBLAS multiplies: only with a fixed one do the same products have the same bits on a GPU.
"""

from __future__ import annotations

import os

# Turns of GNU OpenMP's waiting loop before a thread sleeps; docs/performance.md has what others cost.
SPIN_COUNT = 10_000
# Eight buffers of 4,096 KiB for each handle and stream: 32 MiB, which PyTorch takes on recent GPUs anyway.
CUBLAS_WORKSPACE = ":4096:8"


def set_variables() -> None:
    """To be called before PyTorch is imported. Processes that are started from here inherit them."""
    os.environ.update(variables())


def variables() -> dict[str, str]:
    """By name; the user's own, where one is set."""
    return _wait_policy() | {"CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)}


def _wait_policy() -> dict[str, str]:
    chosen = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    return chosen or {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
