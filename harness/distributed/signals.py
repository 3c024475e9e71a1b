"""Requests to stop: SIGINT, SIGTERM and SIGUSR1 end a run at once; training ends after its next checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """How this process reacts to a request to stop. Until `listen` is called signals have their usual effect."""

    def __init__(self) -> None:
        self._postponed = False
        self._requested = False

    def listen(self) -> None:
        """Handle the signals of this process. They reach its main thread only: in another there is nothing to do."""
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                signal.signal(number, self._receive)

    @contextmanager
    def postponed(self) -> Iterator[Callable[[], bool]]:
        """Inside, a signal raises nothing: the caller asks what this yields, and stops where it can resume later.

        Clusters signal every process of a job, and launchers forward theirs: a signal that comes twice counts once.
        Raises KeyboardInterrupt on leaving where a signal came.
        """
        self._postponed, self._requested = True, False
        try:
            yield lambda: self._requested
        finally:
            self._postponed = False
        if self._requested:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._postponed:
            raise KeyboardInterrupt
        self._requested = True
