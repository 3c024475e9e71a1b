"""Being asked to stop: SIGINT, SIGTERM and SIGUSR1 end a run at once; in training after the next checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_postponed = False
_requested = False


def listen() -> None:
    """Take over the signals of this process; called once, from its main thread."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _asked)


@contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Inside, a signal raises nothing: the caller asks what this yields, and stops where it can go on later.

    Clusters send a signal to every process of a job and launchers forward theirs: one that comes twice counts once.
    """
    global _postponed, _requested
    _postponed, _requested = True, False
    try:
        yield lambda: _requested
    finally:
        _postponed = False
    if _requested:  # after the caller's last question
        raise KeyboardInterrupt


def _asked(number: int, frame: FrameType | None) -> None:
    global _requested
    if not _postponed:
        raise KeyboardInterrupt
    _requested = True
