"""Peak memory of each phase on this rank.

CUDA: allocated and reserved bytes, both, from the allocator's own peaks, reset at the start of a phase.
CPU: anonymous resident memory, sampled; file mappings (a stored checkpoint, say) inflate the plain resident set.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from harness.measure.kernel_kills import kernel_kills

SAMPLE_SECONDS = 0.01
_LIBC = ctypes.CDLL(None)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
_STATM = Path("/proc/self/statm")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CPU_DEFINITION = f"anonymous resident memory, sampled every {SAMPLE_SECONDS * 1000:.0f} ms"
CPU_FALLBACK_DEFINITION = f"resident set size (file mappings included), sampled every {SAMPLE_SECONDS * 1000:.0f} ms"
CUDA_DEFINITION = "bytes allocated by PyTorch on the GPU, peak since the start of the phase"


def definition(device: torch.device) -> str:
    if device.type == "cuda":
        return CUDA_DEFINITION
    return CPU_DEFINITION if _STATM.exists() else CPU_FALLBACK_DEFINITION


def anonymous_bytes() -> int:
    """Resident memory of this process that no file backs (all resident memory, where the system does not say)."""
    if not _STATM.exists():
        return psutil.Process().memory_info().rss
    _, resident, shared, *_ = _STATM.read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def held_bytes(device: torch.device) -> int:
    """What this process holds now, by `definition`."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else anonymous_bytes()


def free_bytes(device: torch.device) -> int:
    """What is free on the device; on a CPU what the system can give without swapping."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def memory_limit() -> float:
    """Bytes that this process may still take on the CPU, with what it holds already: what the system can give without
    swapping, its control group and its own limits allow."""
    held = anonymous_bytes()
    allowed = [held + psutil.virtual_memory().available]
    allowed += [soft for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS) if (soft := _soft_limit(kind))]
    if _CGROUP_LIMIT.exists() and (text := _CGROUP_LIMIT.read_text().strip()).isdigit():
        allowed.append(int(text))
    return min(allowed)


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether memory ran out: on a CPU PyTorch raises a plain RuntimeError then; where a process's memory is limited,
    there may be none for a thread or for a library that is imported."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    messages = ("can't allocate memory", "can't start new thread", "failed to map segment")
    return isinstance(problem, (RuntimeError, ImportError)) and any(text in str(problem) for text in messages)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, instead of giving it back and faulting it in again each time:
    that costs a third of a step in which all 124M parameters are trained. `return_freed_memory` gives it back."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_MAX, 0)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def settle_memory() -> None:
    """What a process does before its first run: imports that would count as that run's memory and time, the second when
    its optimizer is built; and `keep_freed_memory`."""
    import sklearn.metrics  # noqa: F401
    import torch._dynamo  # noqa: F401

    keep_freed_memory()


def return_freed_memory() -> None:
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def give_back_memory() -> None:
    """What is garbage, to the system: else the next run would be measured with it."""
    gc.collect()
    return_freed_memory()


@dataclass
class MemoryMeter:
    """peaks: bytes by phase; reserved: the CUDA allocator's by phase; at_start: bytes when the run began.

    All by `definition`; at_start counts what imports and earlier runs of the process hold. kernel_kills_before: see
    `kernel_kills`.
    """

    device: torch.device
    peaks: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    at_start: int = field(init=False)
    kernel_kills_before: int = field(default_factory=kernel_kills)

    def __post_init__(self) -> None:
        self.at_start = held_bytes(self.device)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            try:
                yield
            finally:
                self._keep(name, torch.cuda.max_memory_allocated(self.device))
                self.reserved[name] = max(self.reserved.get(name, 0), torch.cuda.max_memory_reserved(self.device))
            return
        sampler = _Sampler()
        sampler.start()
        try:
            yield
        finally:
            self._keep(name, sampler.stop())

    def _keep(self, name: str, peak: int) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), peak)


class _Sampler(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._peak = anonymous_bytes()

    def run(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, anonymous_bytes())

    def stop(self) -> int:
        self._done.set()
        self.join()
        return max(self._peak, anonymous_bytes())
