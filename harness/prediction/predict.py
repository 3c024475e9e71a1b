"""Time, memory and cost of the runs of a plan, without running them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.config.schema import EngineConfig
from harness.errors import UserError
from harness.measure.environment import cores
from harness.measure.memory import is_out_of_memory
from harness.model.precision import parameter_dtype
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.prediction.devices import NamedDevice
from harness.prediction.exchange import exchange_seconds
from harness.prediction.machine import Machine
from harness.prediction.memory import RankBytes, rank_bytes
from harness.prediction.passes import Parameters, Pass, RunWork
from harness.prediction.work import ComputedFeatures, RunWalker, Texts

Device = Machine | NamedDevice
# Of the parameters that one collective takes: DDP's bucket.
BUCKET_BYTES = 25_000_000
PHASES = ("prepare", "features", "train", "evaluate")


@dataclass(frozen=True)
class Prediction:
    """seconds: by phase, 0 where the run does not fit. bytes: of one rank. available: bytes that a rank may take.
    steps: of all epochs."""

    planned: PlannedRun
    engine: EngineConfig
    parameters: Parameters
    seconds: dict[str, float]
    bytes: RankBytes
    available: float
    steps: int

    @property
    def step_seconds(self) -> float:
        """Of one step, exchange included."""
        return self.seconds["train"] / self.steps if self.steps else 0.0

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
        self._computed: ComputedFeatures = {}
        self._started: set[EngineConfig] = set()
        self._known: dict[str, tuple[RunWalker, RunWork]] = {}

    def of_plan(self, plan: Plan) -> list[Prediction]:
        """In the order in which runs are done: a run reads the features that those before it have computed. Baselines,
        which take seconds, are left out.

        Raises UserError where memory does not suffice to predict.
        """
        return self._predicted([planned for planned in plan.in_order() if planned.strategy is not None])

    def of_run(self, planned: PlannedRun) -> Prediction:
        """Of one more run."""
        return self._predicted([planned])[0]

    def keep(self) -> None:
        """Keep what was measured for the next command."""
        if isinstance(self.device, Machine):
            self.device.keep()

    def _predicted(self, runs: Sequence[PlannedRun]) -> list[Prediction]:
        try:
            return self._tried(runs)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            raise UserError(
                "memory ran out while parts of the runs were tried, so nothing can be predicted: free some memory, or "
                "plan for another device (DEVICE)."
            ) from problem

    def _tried(self, runs: Sequence[PlannedRun]) -> list[Prediction]:
        walked = [(planned, *self._walked(planned)) for planned in runs]
        of_memory = [self._without_time(planned, work) for planned, _, work in walked]
        if isinstance(self.device, Machine):  # what does not fit can't be rehearsed either
            self.device.rehearse([run for run, one in zip(walked, of_memory, strict=True) if one.fits])
            # A rehearsal in a group shows what an engine's imports hold.
            of_memory = [self._without_time(planned, work) for planned, _, work in walked]
        return [
            replace(one, seconds=self._by_phase(planned, work)) if one.fits else one
            for (planned, _, work), one in zip(walked, of_memory, strict=True)
        ]

    def _walked(self, planned: PlannedRun) -> tuple[RunWalker, RunWork]:
        """Runs that differ in their seed only compute the same, but for the features, which the first stores."""
        strategy, engine = planned.strategy, planned.config.engine
        assert strategy is not None, "baselines are not predicted"
        rest = {key: value for key, value in planned.used.items() if key != "seed"}
        key = json.dumps([rest, planned.source.sha256], sort_keys=True)
        if key in self._known:
            walker, work = self._known[key]
            stored = replace(work, features=None, stored_bytes=0, prefix_bytes=0) if work.features else work
            return walker, stored
        classes = len(planned.dataset(self.workspace).source.classes)
        examples, ranks = self._texts.of(planned, strategy), engine.processes * engine.nodes
        walker = RunWalker(planned, strategy, examples, classes, self.workspace, ranks, self.device.kind)
        self._known[key] = walker, walker.work(self._computed)
        return self._known[key]

    def _without_time(self, planned: PlannedRun, work: RunWork) -> Prediction:
        engine, device = planned.config.engine, self.device
        program = device.program_bytes_in(engine) if isinstance(device, Machine) else device.program_bytes
        return Prediction(
            planned=planned,
            engine=engine,
            parameters=work.parameters,
            seconds=dict.fromkeys(PHASES, 0.0),
            bytes=rank_bytes(work, engine, _element(planned), program),
            available=device.memory_bytes / (engine.processes if device.kind == "cpu" else 1),
            steps=round(work.step.times),
        )

    def _by_phase(self, planned: PlannedRun, work: RunWork) -> dict[str, float]:
        exchange = self._exchange(work, planned.config.engine, _element(planned))
        return {
            "prepare": self._prepare(work, planned),
            "features": self._features(work, planned),
            "train": self._seconds(work.step, planned) + exchange * work.step.times,
            "evaluate": self._seconds(work.evaluate, planned),
        }

    def _prepare(self, work: RunWork, planned: PlannedRun) -> float:
        filling = self._filling(work.parameters.trained + work.parameters.frozen, planned)
        if not isinstance(self.device, Machine):
            return filling
        engine, begun = planned.config.engine, self._started
        start = 0.0 if engine in begun else self.device.start_seconds(engine)
        begun.add(engine)
        return filling + work.building_seconds + start

    def _exchange(self, work: RunWork, engine: EngineConfig, element: int) -> float:
        """Of a step over a named device's link; at hand it is rehearsed with the step."""
        ranks, trained = engine.processes * engine.nodes, work.trained_here * element
        if isinstance(self.device, Machine) or ranks == 1:
            return 0.0
        return exchange_seconds(self.device.link.rates(ranks), engine, trained, max(1, round(trained / BUCKET_BYTES)))

    def _seconds(self, one: Pass, planned: PlannedRun) -> float:
        """Of all times that a pass is done."""
        engine = planned.config.engine
        if isinstance(self.device, Machine):
            return self.device.seconds(one, engine)
        alone = engine.processes * engine.nodes == 1 and engine.name == "ddp" and not planned.config.plain
        return one.times * self.device.seconds(one.walk, captured=alone and one.kind == "step")

    def _features(self, work: RunWork, planned: PlannedRun) -> float:
        if not work.features:
            return self._filling(work.parameters.prefix if work.prefix_bytes else 0, planned)
        engine, device = planned.config.engine, self.device
        passes = self._seconds(work.features, planned) / (engine.processes * engine.nodes)
        if not isinstance(device, Machine):
            return passes
        # Tensors are hashed before and after.
        hashing = 2 * work.prefix_bytes * device.hash_seconds / max(1, cores() // engine.processes)
        written = work.stored_bytes * device.write_seconds
        return passes + hashing + written + self._filling(work.parameters.prefix, planned)

    def _filling(self, parameters: int, planned: PlannedRun) -> float:
        if not isinstance(self.device, Machine):
            return 0.0
        each = self.device.copy_seconds if planned.model.weights_path else self.device.draw_seconds
        return parameters * each


def _element(planned: PlannedRun) -> int:
    """Bytes of a trained parameter."""
    return parameter_dtype(planned.config.precision).itemsize
