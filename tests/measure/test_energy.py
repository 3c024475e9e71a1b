"""Energy by the hardware's counters: Zeus reads a tree of files in RAPL's format; where there is none, it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from harness.distributed.process_group import World
from harness.measure.energy import Counters, EnergyMeter
from harness.results.record import Record

cpu = pytest.importorskip("zeus.device.cpu", reason="of an extra: pip install 'ftbench[energy]'")
rapl = pytest.importorskip("zeus.device.cpu.rapl")

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
WATT_HOUR = 3_600_000_000  # microjoules, RAPL's unit


class Zones:
    """Counters as the kernel has them, by zone: two packages with their memory, and the platform, which has both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for zone, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0/intel-rapl:0:0", "core"),
            ("intel-rapl:0/intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:1/intel-rapl:1:0", "dram"),
            ("intel-rapl:2", "psys"),
        ):
            (folder / zone).mkdir(parents=True)
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{10**15}\n")
            (folder / zone / "energy_uj").write_text("1000\n")

    def take(self, zone: str, watt_hours: float) -> None:
        counter = self.folder / zone / "energy_uj"
        counter.write_text(f"{int(counter.read_text()) + round(watt_hours * WATT_HOUR)}\n")


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zones]:
    """Zeus reads its counters there, once more than it would in a process: it keeps what it has opened."""
    made = Zones(tmp_path / "intel-rapl")
    monkeypatch.setattr(rapl, "RAPL_DIR", str(made.folder))
    monkeypatch.setattr(cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
    yield made
    for one in cpu._cpus.cpus if cpu._cpus else []:
        for file in (one.rapl_file, one.dram):
            if file and file._wraparound_tracker:
                file._wraparound_tracker._stop()
    rapl.rapl_is_available.cache_clear()


def _gather(value: object) -> list:
    return [value]


def test_packages_and_their_memory_add_up_by_phase_and_the_platform_does_not_count(zones: Zones) -> None:
    meter = EnergyMeter(Counters.of(ALONE, jobs=1))
    zones.take("intel-rapl:0", 50)  # before the run
    with meter.phase("train"):
        zones.take("intel-rapl:0", 2)
        zones.take("intel-rapl:1", 1)
        zones.take("intel-rapl:1/intel-rapl:1:0", 0.5)
        zones.take("intel-rapl:0/intel-rapl:0:0", 1.5)  # cores, of the package
        zones.take("intel-rapl:2", 4)
    zones.take("intel-rapl:0", 50)  # between phases
    for _ in range(2):
        with meter.phase("evaluate"):
            zones.take("intel-rapl:0", 0.25)
    energy = meter.over_ranks(_gather)
    assert energy.phases == pytest.approx({"train": 3.5, "evaluate": 0.5})
    assert energy.parts == pytest.approx({"CPU package": 3.5, "DRAM": 0.5})
    assert energy.watt_hours == pytest.approx(4)
    assert energy.measured_by
    assert energy.measured_by.startswith("Zeus 0.")
    assert energy.not_measured == []


def test_runs_side_by_side_share_the_package(zones: Zones) -> None:
    meter = EnergyMeter(Counters.of(ALONE, jobs=2))
    with meter.phase("train"):
        zones.take("intel-rapl:0", 2)
    energy = meter.over_ranks(_gather)
    assert (energy.watt_hours, energy.phases, energy.measured_by) == (None, {}, None)
    assert energy.not_measured == ["CPU package: 2 runs side by side share it"]


def test_one_rank_of_a_machine_reads_its_package(zones: Zones) -> None:
    first, second = (EnergyMeter(Counters.of(World(rank, 2, CPU, rank, 2), jobs=1)) for rank in (0, 1))
    with first.phase("train"), second.phase("train"):
        zones.take("intel-rapl:0", 2)
    assert second.joules == {}
    assert first.joules["train"]["CPU package"] == pytest.approx(7200)


def test_a_part_that_one_rank_cannot_read_is_left_out_of_the_sum() -> None:
    def gather(value: object) -> list:
        other = {"CPU package": "no"} if value == {} else {"train": {"GPU": 3600.0}}
        return [value, other]

    meter = EnergyMeter(Counters(CPU), {"train": {"GPU": 7200.0, "CPU package": 3600.0}})
    energy = meter.over_ranks(gather)
    assert energy.parts == {"GPU": 3}
    assert energy.not_measured == ["CPU package: no"]


def test_counters_that_may_not_be_read_are_a_reason(zones: Zones) -> None:
    (zones.folder / "intel-rapl:0" / "energy_uj").unlink()
    counters = Counters.of(ALONE, jobs=1)
    assert counters.readers == ()
    assert "energy" in counters.not_measured["CPU package"]


def test_without_counters_a_record_says_why(
    run_here: Callable[..., list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(rapl, "CONTAINER_RAPL_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
    (record,) = run_here(strategy=["head_only"], data__size=60, training__epochs=0)
    assert record.energy
    assert record.energy.watt_hours is None
    assert record.energy.not_measured[0].startswith("CPU package: RAPL")
    assert "energy" not in json.loads((tmp_path / "results" / "comparison.json").read_text())[0]["rows"][0]["values"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ftbench[energy]" in Counters.of(ALONE, jobs=1).not_measured["CPU package"]
