"""Requests to stop: SIGINT, SIGTERM and SIGUSR1 end a run at once; in training after the next checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignals:
    """What this process was asked by signals."""

    def __init__(self) -> None:
        self._postponed = False
        self._requested = False

    def listen(self) -> None:
        """Take over the signals of this process; called once, from its main thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._receive)

    @contextmanager
    def postponed(self) -> Iterator[Callable[[], bool]]:
        """Inside, a signal raises nothing: the caller asks what this yields, and stops where it can resume later.

        Clusters send a signal to every process of a job and launchers forward theirs: one that comes twice counts once.
        """
        self._postponed, self._requested = True, False
        try:
            yield lambda: self._requested
        finally:
            self._postponed = False
        if self._requested:  # after the caller's last question
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._postponed:
            raise KeyboardInterrupt
        self._requested = True
