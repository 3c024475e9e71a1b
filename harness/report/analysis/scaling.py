"""Throughput, efficiency and communication of runs that differ in their engine only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from harness.results.names import engine_name, row_name
from harness.results.record import Record


@dataclass(frozen=True)
class ScalingRow:
    """cores: of all ranks together (threads on CPUs, devices on GPUs). efficiency: None where no single rank ran.

    bytes_by_collective: that a rank hands to each kind of collective in a step; empty for a single rank.
    has_own_cores: each rank, for all its threads. step_spread: 95th percentile of the time of a step over the median.
    trained: parameters. batch: texts of a step, all ranks together. captured: steps ran as captured CUDA graphs, which
    those of one rank alone may.
    """

    engine: str
    ranks: int
    cores: int
    examples_per_second: float
    efficiency: float | None
    bytes_by_collective: dict[str, float]
    milliseconds_per_step: float | None
    has_own_cores: bool
    step_spread: float
    trained: int
    batch: int
    on_cpu: bool
    captured: bool = False

    @property
    def bytes_per_step(self) -> float | None:
        return sum(self.bytes_by_collective.values()) if self.bytes_by_collective else None

    @property
    def step_seconds(self) -> float:
        return self.batch / self.examples_per_second


def scaling(records: Sequence[Record]) -> list[tuple[str, list[ScalingRow]]]:
    """Title and rows (medians over seeds) of each strategy that ran with several engines or numbers of ranks.

    The rest of the configuration is the same for all rows.
    """
    groups: dict[str, dict[tuple[int, str], list[Record]]] = {}
    for record in records:
        if record.throughput and record.throughput.examples_per_second:
            setup = (record.engine.world_size, engine_name(record))
            groups.setdefault(configuration_but_engine(record), {}).setdefault(setup, []).append(record)
    return [(_title(next(iter(setups.values()))[0]), _rows(setups)) for setups in groups.values() if len(setups) > 1]


def configuration_but_engine(record: Record) -> str:
    rest = {key: value for key, value in record.config.items() if key not in ("engine", "seed")}
    return json.dumps([rest, record.model.weights_sha256, record.environment["device"], record.jobs], sort_keys=True)


def _title(record: Record) -> str:
    training, device = record.config["training"], record.environment["device"]
    data = f"{record.config['data']['name']}, {training['epochs']} epochs, batch {training['batch_size']}"
    return f"Scaling of {row_name(record)} on {record.model.name}: {data}, {record.precision}, {device}"


def _rows(setups: dict[tuple[int, str], list[Record]]) -> list[ScalingRow]:
    """setups: records by number of ranks and engine."""
    rates = {key: median(map(_examples_per_second, records)) for key, records in setups.items()}
    single = {name: rates[ranks, name] / _cores(setups[ranks, name][0]) for ranks, name in rates if ranks == 1}
    rows = []
    for (ranks, name), records in sorted(setups.items()):
        exchanged = [record.communication for record in records if record.communication]
        one = single.get(name, single.get("ddp"))
        first, cores = records[0], _cores(records[0])
        rows.append(
            ScalingRow(
                engine=name,
                ranks=ranks,
                cores=cores,
                examples_per_second=rates[ranks, name],
                efficiency=rates[ranks, name] / cores / one if one else None,
                bytes_by_collective=exchanged[0].bytes_by_collective if exchanged else {},
                milliseconds_per_step=median(c.milliseconds_per_step for c in exchanged) if exchanged else None,
                has_own_cores=first.environment["device"] != "cpu" or cores >= ranks * first.environment["threads"],
                step_spread=median(map(_step_spread, records)),
                trained=_trained(first),
                batch=first.config["training"]["batch_size"],
                on_cpu=first.environment["device"] == "cpu",
                captured=first.graphs is not None and first.graphs.not_captured is None,
            )
        )
    return rows


def _examples_per_second(record: Record) -> float:
    assert record.throughput is not None, f"{record.run_id} has no throughput measured"
    assert record.throughput.examples_per_second is not None, f"{record.run_id} has fewer steps than the warm-up"
    return record.throughput.examples_per_second


def _trained(record: Record) -> int:
    assert record.model.trainable_parameters is not None, f"{record.run_id} has trained nothing"
    return record.model.trainable_parameters


def _step_spread(record: Record) -> float:
    times = record.step_milliseconds
    return times.p95 / times.p50 if times and times.p50 and times.p95 else 1.0


def _cores(record: Record) -> int:
    """Ranks may have more threads than there are cores."""
    environment, ranks = record.environment, record.engine.world_size
    if environment["device"] != "cpu":
        return ranks
    return min(ranks * environment["threads"], record.config["engine"]["nodes"] * environment["cores"])
