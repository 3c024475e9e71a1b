"""How OpenMP's threads wait for each other.

By default they spin. Where several commands or ranks share cores, threads that spin keep others from working, and every
one of them slows down many times.
"""

from __future__ import annotations

import os

# Turns of GNU OpenMP's waiting loop before a thread sleeps; docs/performance.md has what others cost.
SPIN_COUNT = 10_000


def set_wait_policy() -> None:
    """Let threads sleep soon, unless the user's environment says how they wait.

    To be called before PyTorch is imported: the OpenMP library reads its environment when it is loaded. Processes that
    are started from here inherit it.
    """
    os.environ.update(wait_policy())


def wait_policy() -> dict[str, str]:
    """The environment variables that set it; the user's own, where one is set."""
    chosen = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    return chosen or {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
