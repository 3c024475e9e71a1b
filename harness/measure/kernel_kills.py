"""Processes that the kernel killed, out of memory."""

from __future__ import annotations

from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def kernel_kills() -> int:
    """How many processes of this machine the kernel has killed, out of memory, since it started; 0 where the
    system does not say. A killed rank can't report it: whoever notices that it is gone compares two counts."""
    if not _VMSTAT.exists():
        return 0
    counters = dict(line.split() for line in _VMSTAT.read_text().splitlines())
    return int(counters.get("oom_kill", 0))
