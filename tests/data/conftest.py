"""Texts with labels, as data files and splits of several tests have them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.data_files import Parts, rows_of


@pytest.fixture
def rows() -> list[tuple[str, str]]:
    return rows_of(np.random.default_rng(0), 48)


@pytest.fixture
def parts() -> Parts:
    """Of a split; a text is in train and in test."""
    rows = rows_of(np.random.default_rng(0), 60)
    return {"train": rows[:40], "validation": rows[40:46], "test": [*rows[46:58], rows[0]]}
