"""Signals of a process that is not ours: a notebook's, a REPL's, another program's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from harness.distributed.signals import HANDLED


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Inside, runs may handle signals (`StopSignals.listen`); on leaving, they are handled as before."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that Python did not install, and can't; in other threads nothing was changed.
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
