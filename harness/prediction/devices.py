"""Devices whose constants are kept in a file, `devices.yaml`: what `ftbench plan --device` computes with."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
import yaml
from pydantic import Field

from harness.config.schema import Part
from harness.errors import UserError, did_you_mean
from harness.prediction.exchange import GroupRates
from harness.prediction.work.operations import Operation
from harness.prediction.work.walk import Walk

FILE = Path(__file__).with_name("devices.yaml")
_PRECISION = {torch.bfloat16: "bf16", torch.float64: "fp64"}
Rate = Annotated[float, Field(gt=0)]


class Link(Part):
    """How devices exchange."""

    bytes_per_second: Rate
    latency_seconds: Annotated[float, Field(ge=0)]

    def rates(self, size: int) -> GroupRates:
        """Of a ring of `size` devices (Patarasuk and Yuan, JPDC, 2009)."""
        part = (size - 1) / size / self.bytes_per_second
        return GroupRates(
            latency_seconds=self.latency_seconds,
            all_reduce=2 * part,
            all_gather=part,
            reduce_scatter=part,
        )


class NamedDevice(Part):
    """A device that is not at hand; `devices.yaml` explains the fields."""

    title: str
    memory_bytes: Rate
    program_bytes: Rate
    products: dict[str, list[tuple[Rate, Rate]]]
    bandwidth: Rate
    launch_seconds: Rate
    host_seconds: Rate
    link: Link
    sources: str

    kind: str = "cuda"

    def units(self) -> tuple[bool, str]:
        """See `harness.model.precision.Units`."""
        has = "bf16" in self.products
        return has, f"{self.title} has it" if has else f"{self.title} has no bfloat16"

    def seconds(self, walk: Walk, captured: bool = False) -> float:
        """captured: as one graph; else the host may be what the device waits for."""
        busy = sum(count * self._of(operation) for operation, count in walk.operations.items())
        return busy if captured else max(busy, walk.calls * self.host_seconds)

    def _of(self, operation: Operation) -> float:
        moved = operation.bytes / self.bandwidth
        if not operation.flops:
            return max(self.launch_seconds, moved)
        precision = _PRECISION.get(operation.precision, "fp32")
        rates = self.products.get(precision)
        if rates is None:
            raise UserError(
                f"PRECISION={precision} with DEVICE: no figures of {self.title} are kept; expected "
                f"{' or '.join(self.products)}."
            )
        return max(self.launch_seconds, moved, operation.flops / _interpolated(rates, operation.flops))


def _interpolated(rates: list[tuple[float, float]], size: float) -> float:
    """On logarithmic scales; the nearest beyond the ends."""
    if size <= rates[0][0]:
        return rates[0][1]
    for (smaller, low), (larger, high) in pairwise(rates):
        if size <= larger:
            part = math.log(size / smaller) / math.log(larger / smaller)
            return low * (high / low) ** part
    return rates[-1][1]


def device_of_title(title: str) -> NamedDevice | None:
    """The device whose title PyTorch gives, such as "NVIDIA H200"; None where `devices.yaml` does not have it."""
    known = [NamedDevice.model_validate(figures) for figures in _known().values()]
    return next((device for device in known if device.title == title), None)


def _known() -> dict[str, dict[str, object]]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def device_named(name: str) -> NamedDevice:
    """Raises UserError for a name that `devices.yaml` does not have."""
    known = _known()
    if name not in known:
        hint = did_you_mean(name, known, most=2)
        raise UserError(f"DEVICE={name!r}: {hint}Known are {', '.join(sorted(known))}; none plans for this machine.")
    return NamedDevice.model_validate(known[name])
