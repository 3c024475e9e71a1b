"""Time, memory and cost of the runs of a plan, without running them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.config.schema import EngineConfig
from harness.measure.environment import cores
from harness.model.precision import parameter_dtype
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.prediction.devices import NamedDevice
from harness.prediction.exchange import GroupRates, exchange_seconds
from harness.prediction.machine import Machine
from harness.prediction.memory import RankBytes, rank_bytes
from harness.prediction.work import Parameters, RunWalker, RunWork, Texts

Device = Machine | NamedDevice
# Of the parameters that one collective takes: DDP's bucket.
BUCKET_BYTES = 25_000_000


@dataclass(frozen=True)
class Prediction:
    """seconds: by phase. bytes: of one rank. available: bytes that a rank may take. step_seconds: of one step, exchange
    included. steps: of all epochs."""

    planned: PlannedRun
    engine: EngineConfig
    parameters: Parameters
    seconds: dict[str, float]
    bytes: RankBytes
    available: float
    step_seconds: float
    exchange_seconds: float
    steps: int

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def ranks(self) -> int:
        return self.engine.processes * self.engine.nodes

    @property
    def device_seconds(self) -> float:
        """Of all ranks together: what is paid for."""
        return self.total_seconds * self.ranks

    def cost(self, price: float, on_gpu: bool) -> float:
        """price: of an hour of a GPU, or without GPUs of a machine."""
        return price * self.total_seconds / 3600 * (self.ranks if on_gpu else self.engine.nodes)

    @property
    def fits(self) -> bool:
        return self.bytes.peak <= self.available


@dataclass
class Predictor:
    workspace: Workspace
    device: Device

    def __post_init__(self) -> None:
        self._texts = Texts(self.workspace)
        # Of features that runs before have computed: how many stages, for prefixes of one model on the same texts.
        self._computed: dict[tuple, set[tuple[int, str | None]]] = {}

    def of_plan(self, plan: Plan) -> Iterator[Prediction]:
        """In the order in which runs are done: a run reads the features that those before it have computed. Baselines,
        which take seconds, are left out."""
        for planned in plan.in_order():
            if planned.strategy is not None:
                yield self.of_run(planned)

    def keep(self) -> None:
        """Keep what was measured for the next command."""
        if isinstance(self.device, Machine):
            self.device.keep()

    def of_run(self, planned: PlannedRun) -> Prediction:
        strategy = planned.strategy
        assert strategy is not None, "baselines are not predicted"
        engine = planned.config.engine
        dataset = planned.dataset(self.workspace)
        walker = RunWalker(
            planned,
            strategy,
            self._texts.of(planned, strategy),
            len(dataset.source.classes),
            self.workspace,
            engine.processes * engine.nodes,
            self.device.kind,
        )
        return self._predicted(planned, walker.work(self._computed), engine)

    def _predicted(self, planned: PlannedRun, work: RunWork, engine: EngineConfig) -> Prediction:
        element = parameter_dtype(planned.config.precision).itemsize
        ranks, device = engine.processes * engine.nodes, self.device
        threads = max(1, cores() // engine.processes)
        trained = work.trained_here * element
        group = self._group(engine) if ranks > 1 else None
        pieces = max(1, round(trained / BUCKET_BYTES))
        exchange = exchange_seconds(group, engine, trained, pieces) if group else 0.0
        slowdown = group.slowdown if group else 1.0
        captured = ranks == 1 and engine.name == "ddp" and not planned.config.plain
        step = slowdown * (device.seconds(work.step.walk, threads, captured) + work.layout_seconds) + exchange
        seconds = {
            "prepare": self._filling(work.parameters.trained + work.parameters.frozen, planned),
            "features": self._features(work, planned, threads, slowdown, ranks),
            "train": step * work.step.times,
            "evaluate": slowdown * device.seconds(work.evaluate.walk, threads) * work.evaluate.times,
        }
        bytes_ = rank_bytes(work, engine, element, device.program_bytes)
        available = device.memory_bytes / (engine.processes if device.kind == "cpu" else 1)
        return Prediction(
            planned, engine, work.parameters, seconds, bytes_, available, step, exchange, round(work.step.times)
        )

    def _features(self, work: RunWork, planned: PlannedRun, threads: int, slowdown: float, ranks: int) -> float:
        if not work.features:
            return self._filling(work.parameters.prefix if work.prefix_bytes else 0, planned)
        passes = slowdown * self.device.seconds(work.features.walk, threads) * work.features.times / ranks
        if not isinstance(self.device, Machine):
            return passes
        # Tensors are hashed before and after.
        hashing = 2 * work.prefix_bytes * self.device.hash_seconds / threads
        return (
            passes
            + hashing
            + self._filling(work.parameters.prefix, planned)
            + work.stored_bytes * self.device.write_seconds
        )

    def _filling(self, parameters: int, planned: PlannedRun) -> float:
        if not isinstance(self.device, Machine):
            return 0.0
        each = self.device.copy_seconds if planned.model.weights_path else self.device.draw_seconds
        return parameters * each

    def _group(self, engine: EngineConfig) -> GroupRates:
        size = engine.processes * engine.nodes
        if isinstance(self.device, Machine):
            return self.device.group(size)
        link = self.device.link
        part = (size - 1) / size / link.bytes_per_second
        return GroupRates(
            latency_seconds=link.latency_seconds,
            all_reduce=2 * part,
            all_gather=part,
            reduce_scatter=part,
            slowdown=1.0,
        )
