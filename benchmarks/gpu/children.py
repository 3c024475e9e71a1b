"""Workers that do jobs: one that dies is followed by another, one that takes too long is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.jobs import Result
from benchmarks.gpu.worker import MARK, Peaks, Plan
from benchmarks.processes import ROOT


def done(plan: Plan, deadline: float) -> Iterator[Peaks | Result]:
    """What the worker measures, as it comes; every job gives a result. deadline: on the clock `time.monotonic`."""
    left = list(plan.jobs)
    while left and time.monotonic() < deadline:
        error = ""
        with tempfile.TemporaryFile("w+") as errors:
            for line in _lines(plan.model_copy(update={"jobs": left}), deadline, errors):
                if line.startswith('{"device"'):
                    yield Peaks.model_validate_json(line)
                else:
                    left.pop(0)
                    yield Result.model_validate_json(line)
            errors.seek(0)
            error = next((line.strip() for line in reversed(errors.readlines()) if line.strip()), "no message")
        plan = plan.model_copy(update={"products": 0})
        if left and time.monotonic() < deadline:
            yield Result(job=left.pop(0), note=f"failed: the process ended: {error[:120]}")
    for job in left:
        yield Result(job=job, note="no time left")


def _lines(plan: Plan, deadline: float, errors) -> Iterator[str]:
    """The results that a worker prints, without their mark."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        command = [sys.executable, "-m", "benchmarks.gpu.worker", str(path)]
        environment = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "KINETO_LOG_LEVEL": "6"} | os.environ
        worker = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        assert worker.stdout is not None
        stop = threading.Timer(max(0.0, deadline - time.monotonic()), _stop, [worker])
        stop.start()
        try:
            for line in worker.stdout:
                if line.startswith(MARK):
                    yield line.removeprefix(MARK)
        finally:
            stop.cancel()
            _stop(worker)
            worker.wait()


def _stop(worker: subprocess.Popen) -> None:
    """With the processes that load its data."""
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
