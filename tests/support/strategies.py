"""Which strategies a test runs for: one of each kind, and in the long tests all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from strategies import built_in_names

# Of a head alone, one block, adapters below it, a pooled readout, padding, vectors before the rows, and a fitted head.
EACH_KIND = ("head_only", "last_block", "lora", "mean_pool", "last_padded", "prompt_tuning", "probe_then_full")


def every_strategy(but: Sequence[str] = (), short: Sequence[str] = EACH_KIND) -> list[Any]:
    """The names of all built-in ones as parameters of a test.

    but: those that the test is not for. short: those that are not for the long tests only.
    """
    names = [name for name in built_in_names() if name not in but]
    return [*(name for name in names if name in short), *long(*(name for name in names if name not in short))]


def long(*values: Any) -> list[Any]:
    """Parameters of a test, for the long tests only."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]
