"""Energy that a run takes, by phase, from the counters of the hardware, which Zeus reads.

A GPU has one that NVML gives, a processor package and its memory have one that RAPL gives. Nothing is worked out from
a power limit or a data sheet: what has no counter is not measured, and a reason says so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.distributed.process_group import World
from harness.results.record import Energy

LIBRARY = "zeus"
NOT_INSTALLED = "Zeus is not installed; `pip install 'ftbench[energy]'` brings it"
GPU, PACKAGE, DRAM = "GPU", "CPU package", "DRAM"
JOULES_PER_WATT_HOUR = 3600
# Joules of each part since some fixed moment.
Reader = Callable[[], dict[str, float]]


class _NoCounter(Exception):
    """The reason why a part of the hardware has no counter that can be read."""


@dataclass(frozen=True)
class Counters:
    """What one rank reads: its GPU's counter and, on the first rank of a machine, those of the processor.

    not_measured: by part of the hardware, why its energy is not known, or is not of this run alone.
    """

    device: torch.device
    readers: tuple[Reader, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World, jobs: int) -> Counters:
        """jobs: runs that are done side by side; they share the processor."""
        device, readers, not_measured = world.device, [], {}
        opened: dict[str, Callable[[], Reader]] = {GPU: lambda: _gpu(device)} if device.type == "cuda" else {}
        if world.local_rank == 0:
            opened[PACKAGE] = lambda: _packages(jobs)
        for part, open_counter in opened.items():
            try:
                readers.append(open_counter())
            except _NoCounter as reason:
                not_measured[part] = str(reason)
        # What a processor takes is not what a run on a GPU takes.
        return cls(device, () if GPU in not_measured else tuple(readers), not_measured)

    def read(self) -> dict[str, float]:
        """Joules by part since some fixed moment, once the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return {part: joules for reader in self.readers for part, joules in reader().items()}


@dataclass
class EnergyMeter:
    """joules: that this rank has read, by phase and part of the hardware."""

    counters: Counters
    joules: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if not self.counters.readers:
            yield
            return
        before = self.counters.read()
        try:
            yield
        finally:
            taken = self.joules.setdefault(name, {})
            for part, joules in self.counters.read().items():
                taken[part] = taken.get(part, 0.0) + joules - before[part]

    def over_ranks(self, gather: Callable[[Any], list[Any]]) -> Energy:
        """The sum over the ranks that `gather` asks. A part that one of them can't read is left out of it."""
        not_measured = {
            part: reason for one in gather(dict(self.counters.not_measured)) for part, reason in one.items()
        }
        parts: dict[str, float] = {}
        phases: dict[str, float] = {}
        for by_phase in gather(self.joules):
            for phase, by_part in by_phase.items():
                for part, joules in by_part.items():
                    if part not in not_measured and GPU not in not_measured:
                        parts[part] = parts.get(part, 0.0) + joules / JOULES_PER_WATT_HOUR
                        phases[phase] = phases.get(phase, 0.0) + joules / JOULES_PER_WATT_HOUR
        return Energy(
            watt_hours=sum(phases.values()) if phases else None,
            phases=phases,
            parts=parts,
            measured_by=f"Zeus {importlib.metadata.version(LIBRARY)}" if phases else None,
            not_measured=[f"{part}: {reason}" for part, reason in not_measured.items()],
        )


def _check_installed() -> None:
    if importlib.util.find_spec(LIBRARY) is None:
        raise _NoCounter(NOT_INSTALLED)


def _gpu(device: torch.device) -> Reader:
    _check_installed()
    from zeus.device import get_gpus  # pyright: ignore[reportMissingImports]  # of an extra
    from zeus.exception import ZeusBaseError  # pyright: ignore[reportMissingImports]

    index = device.index or 0  # as PyTorch counts, which is what Zeus expects
    try:
        gpus = get_gpus()
        if not gpus.supports_get_total_energy_consumption(index):
            raise _NoCounter("it has no energy counter")
        gpus.get_total_energy_consumption(index)  # a part of a GPU has none, whatever its architecture has
    except (ZeusBaseError, ImportError, ValueError) as error:  # CUDA_VISIBLE_DEVICES without plain numbers
        raise _NoCounter(_one_line(error)) from error
    return lambda: {GPU: gpus.get_total_energy_consumption(index) / 1000}


def _packages(jobs: int) -> Reader:
    if jobs > 1:
        raise _NoCounter(f"{jobs} runs side by side share it")
    _check_installed()
    from zeus.device import get_cpus  # pyright: ignore[reportMissingImports]  # of an extra
    from zeus.device.cpu.rapl import RAPLCPUs  # pyright: ignore[reportMissingImports]
    from zeus.exception import ZeusBaseError  # pyright: ignore[reportMissingImports]

    try:
        cpus = get_cpus()
        assert isinstance(cpus, RAPLCPUs), "Zeus reads no other processors"
        # Beside packages there may be `psys`, the platform, which contains them.
        zones = [Path(cpus.rapl_dir) / f"intel-rapl:{cpu.cpu_index}" / "name" for cpu in cpus.cpus]
        packages = [number for number, zone in enumerate(zones) if zone.read_text().startswith("package")]
        taken = [cpus.get_total_energy_consumption(number) for number in packages]
    except (ZeusBaseError, OSError) as error:
        raise _NoCounter(_one_line(error)) from error
    if not taken:
        raise _NoCounter(f"{cpus.rapl_dir} names no processor package")
    has_dram = all(one.dram_mj is not None for one in taken)

    def read() -> dict[str, float]:
        measured = [cpus.get_total_energy_consumption(number) for number in packages]
        joules = {PACKAGE: sum(one.cpu_mj for one in measured) / 1000}
        return joules | ({DRAM: sum(one.dram_mj or 0.0 for one in measured) / 1000} if has_dram else {})

    return read


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
