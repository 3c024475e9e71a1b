"""What ranks exchange in a training step: bytes and time in collectives.

Measured in a few steps of their own, under PyTorch's profiler, so that it does not disturb the timing of the others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType
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
    microseconds = 0.0
    for event in profiler.events() or []:
        if event.name.startswith(backend):
            exchanged[event.name.removeprefix(backend)] += sum(
                math.prod(shape) * _BYTES.get(kind, element_bytes)
                for shape, kind in zip(event.input_shapes, event.input_dtypes, strict=True)
            )
        kernel = event.device_type == DeviceType.CUDA and event.name.startswith("ncclDevKernel")
        if kernel or (device.type == "cpu" and event.name.startswith(backend)):
            microseconds += event.time_range.elapsed_us()
    return Communication(
        bytes_by_collective={name: count / PROFILED_STEPS for name, count in exchanged.items()},
        milliseconds_per_step=microseconds / 1000 / PROFILED_STEPS,
    )
