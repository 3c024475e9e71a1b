"""How processes that compute side by side on one machine share its cores."""

from __future__ import annotations

import os

from harness.measure.environment import cores_each


def part_of_cores(processes: int) -> dict[str, str]:
    """The variable that gives each of them an equal part; the user's own, where it is set."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores_each(processes)))}
