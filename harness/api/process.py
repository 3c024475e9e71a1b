"""A process that is not ours: a notebook's, a REPL's, another program's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.distributed.signals import HANDLED
from harness.model.device_settings import settings_kept


@contextmanager
def process_kept() -> Iterator[None]:
    """Inside, runs may change how signals are handled, PyTorch's switches and its random state; on leaving, all are as
    before."""
    with _handlers_kept(), _random_state_kept(), settings_kept():
        yield


@contextmanager
def _handlers_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that Python did not install, and can't; in other threads nothing was changed.
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    was_initialized = torch.cuda.is_initialized()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if was_initialized else []):
            yield
    finally:
        if torch.cuda.is_initialized() and not was_initialized:
            torch.cuda.manual_seed_all(torch.initial_seed())  # as GPUs would have begun without us
