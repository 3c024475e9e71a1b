"""What ranks exchange in a training step: bytes and time in collectives.

Measured in a few steps of their own, under PyTorch's profiler, so that it does not disturb the timing of the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType, _KinetoEvent
from torch.profiler import ProfilerActivity, profile

from harness.results.record import Communication

PROFILED_STEPS = 5
# By the names that the profiler gives to types.
_BYTES = {"double": 8, "float": 4, "c10::BFloat16": 2, "c10::Half": 2, "long int": 8, "int": 4, "unsigned char": 1}


def measure_communication(step: Callable[[], object], element_bytes: int, device: torch.device) -> Communication:
    """Run `step` PROFILED_STEPS times; means of one step on this rank.

    bytes: of the tensors that this rank hands to collectives, `element_bytes` for each element whose type the profiler
    does not report. How much of it crosses a wire depends on the algorithm: a ring sends 2 (N - 1) / N
    of what is all-reduced.
    milliseconds: from the start to the end of each collective, waiting for the other ranks included; where they run
    beside the computation it is not all added to the step.
    """
    step()  # buffers that evaluation gave back
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
    backend = "nccl:" if device.type == "cuda" else "gloo:"
    exchanged: dict[str, int] = defaultdict(int)
    nanoseconds = 0
    for event in _events(profiler):
        name = event.name()
        if name.startswith(backend):
            exchanged[name.removeprefix(backend)] += sum(
                math.prod(shape) * _BYTES.get(kind, element_bytes)
                for shape, kind in zip(event.shapes(), event.dtypes(), strict=True)
            )
        kernel = event.device_type() == DeviceType.CUDA and name.startswith("ncclDevKernel")
        if kernel or (device.type == "cpu" and name.startswith(backend)):
            nanoseconds += event.duration_ns()
    return Communication(
        bytes_by_collective={name: count / PROFILED_STEPS for name, count in exchanged.items()},
        milliseconds_per_step=nanoseconds / 1e6 / PROFILED_STEPS,
    )


def _events(profiler: profile) -> list[_KinetoEvent]:
    """As they were recorded: `profiler.events()` makes a tree of them, which takes several seconds with DeepSpeed."""
    assert profiler.profiler is not None, "it has run"
    assert profiler.profiler.kineto_results is not None, "it has ended"
    return profiler.profiler.kineto_results.events()
