"""What a run ran on: versions, machine, code. Environment variables are never read into it, so no secret is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from harness import __version__
from harness.measure.code import PACKAGE

_RECORDED_VERSIONS = ("torch", "numpy", "pandas", "tiktoken", "safetensors", "deepspeed", "transformers")


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_each(processes: int) -> int:
    """Of so many that compute side by side on this machine."""
    return max(1, cores() // processes)


def threads_each(processes: int) -> int:
    """On which each of so many runs or ranks computes: as many as the user says, else PyTorch's number for one process,
    and for several their part of the cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked):
        return int(asked)
    return torch.get_num_threads() if processes == 1 else cores_each(processes)


def describe(device: torch.device, code_sha256: str, jobs: int) -> dict[str, Any]:
    """code_sha256: of the code that determines results. jobs: runs that are done side by side."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "ram_bytes": psutil.virtual_memory().total,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": _versions(),
        "git": _git_revision(),
        "code_sha256": code_sha256,
        "jobs": jobs,
    }


def _versions() -> dict[str, str]:
    versions = {"ftbench": __version__}
    for name in _RECORDED_VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _git_revision() -> dict[str, Any] | None:
    """Revision of the checkout that the code runs from; None where it is installed: what lies in a virtual environment
    inside somebody's checkout is not of its revision."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "__init__.py")
        return {"revision": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return None
