"""Time, memory and cost of the runs of a plan, without running them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from harness.config.schema import EngineConfig, RunConfig
from harness.errors import UserError
from harness.measure.code import code_sha256
from harness.measure.environment import cores_each
from harness.measure.memory import is_out_of_memory
from harness.model.precision import parameter_dtype
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.prediction.devices import NamedDevice
from harness.prediction.exchange import exchange_seconds
from harness.prediction.machine import Machine, Runs
from harness.prediction.memory import rank_bytes, sharded
from harness.prediction.prediction import PHASES, NotPredicted, Prediction, key_of, name_of
from harness.prediction.work.kept import KeptWork
from harness.prediction.work.passes import Pass, RunWork
from harness.prediction.work.walker import ComputedFeatures, RunWalker, Texts
from harness.training.engines.ddp import not_capturable
from harness.training.engines.factory import engine_at_work

Device = Machine | NamedDevice
T = TypeVar("T")


class NoMemoryToPredict(UserError):
    """Parts of a run are tried, for which this machine has not the memory."""


@dataclass
class Predictor:
    workspace: Workspace
    device: Device

    def __post_init__(self) -> None:
        self._texts = Texts(self.workspace)
        self._walkers: dict[str, RunWalker] = {}
        # By a run's id what those before it have computed.
        self._before: dict[str, ComputedFeatures] = {}
        # The id of the run that starts the group of ranks.
        self._first: str | None = None

    def of_plan(self, plan: Plan) -> list[Prediction | NotPredicted]:
        """In the order in which runs are done: a run reads the features that those before it have computed. Baselines,
        which take seconds, are left out.

        Raises NoMemoryToPredict.
        """
        return self._predicted([planned for planned in plan.in_order() if planned.strategy is not None], {})

    def of_run(self, planned: PlannedRun) -> Prediction | NotPredicted:
        """Of a run in the place of the planned one that has its id: with the features that are there before that."""
        return self._predicted([planned], self._before.get(planned.run_id, {}))[0]

    def keep(self) -> None:
        """Keep what was measured for the next command."""
        if isinstance(self.device, Machine):
            self.device.keep()

    def _predicted(self, runs: Sequence[PlannedRun], computed: ComputedFeatures) -> list[Prediction | NotPredicted]:
        try:
            return self._tried(runs, computed)
        except (RuntimeError, MemoryError, ImportError) as problem:
            if not is_out_of_memory(problem):
                raise
            raise NoMemoryToPredict(
                "memory ran out while parts of the runs were tried, so nothing can be predicted: free some memory, or "
                "plan for another device (DEVICE)."
            ) from problem

    def _tried(self, runs: Sequence[PlannedRun], computed: ComputedFeatures) -> list[Prediction | NotPredicted]:
        walked = list(zip(runs, self._works(runs, computed), strict=True))
        failed: dict[str, NotPredicted] = {}
        if isinstance(self.device, Machine):  # what does not fit can't be rehearsed either
            works = [(planned, work) for planned, work in walked if isinstance(work, RunWork)]
            failed = self._rehearsed(self.device, [run for run in works if self._without_time(*run).fits])
        return [failed.get(planned.run_id) or self._with_time(planned, work) for planned, work in walked]

    def _rehearsed(self, machine: Machine, runs: Runs) -> dict[str, NotPredicted]:
        """By id those whose rehearsal fails. Where one of several does, each is rehearsed by itself."""
        if not runs:
            return {}
        (first, _), *more = runs
        failed = _attempt(first, lambda: machine.rehearse(runs, self._walker))
        if not isinstance(failed, NotPredicted):
            return {}
        if not more:
            return {first.run_id: failed}
        return {run_id: one for run in runs for run_id, one in self._rehearsed(machine, [run]).items()}

    def _with_time(self, planned: PlannedRun, work: RunWork | NotPredicted) -> Prediction | NotPredicted:
        if isinstance(work, NotPredicted):
            return work
        # A rehearsal in a group has shown what an engine's imports hold.
        one = self._without_time(planned, work)
        if not one.fits:
            return one
        return _attempt(planned, lambda: replace(one, seconds=self._by_phase(planned, work)))

    def _works(self, runs: Sequence[PlannedRun], computed: ComputedFeatures) -> Sequence[RunWork | NotPredicted]:
        """As an earlier command has kept them, unless something of them has still to be timed. computed: before the
        first of them."""
        state = sorted(f"{key} {sorted(map(str, stages))}" for key, stages in computed.items())
        about = [code_sha256(), torch.__version__, self.device.kind, state, *map(key_of, runs)]
        name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        path = self.workspace.cache / "calibration" / "work" / f"{name}.json"
        kept = KeptWork.read(path)
        if kept and self._is_timed(runs, kept.works):
            self._keep_before(runs, kept.before)
            return kept.works
        tried, before = [], [computed]
        for planned in runs:
            before.append({key: set(stages) for key, stages in before[-1].items()})
            tried.append(_attempt(planned, partial(self._walker(planned).work, before[-1])))
        works = [work for work in tried if isinstance(work, RunWork)]
        if len(works) == len(tried):
            KeptWork(works, before[:-1]).write(path)
        self._keep_before(runs, before[:-1])
        return tried

    def _keep_before(self, runs: Sequence[PlannedRun], before: Sequence[ComputedFeatures]) -> None:
        for planned, computed in zip(runs, before, strict=True):
            self._before.setdefault(planned.run_id, computed)
        self._first = self._first or next((planned.run_id for planned in runs), None)

    def _is_timed(self, runs: Sequence[PlannedRun], works: Sequence[RunWork]) -> bool:
        device = self.device
        return not isinstance(device, Machine) or all(
            device.has_timed(work, planned.config.engine)
            for planned, work in zip(runs, works, strict=True)
            if self._without_time(planned, work).fits
        )

    def _walker(self, planned: PlannedRun) -> RunWalker:
        strategy, engine, key = planned.strategy, planned.config.engine, key_of(planned)
        assert strategy is not None, "baselines are not predicted"
        if key not in self._walkers:
            classes = len(planned.dataset(self.workspace).source.classes)
            examples, ranks = self._texts.of(planned, strategy), engine.world_size
            self._walkers[key] = RunWalker(
                planned, strategy, examples, classes, self.workspace, ranks, self.device.kind
            )  # fmt: skip
        return self._walkers[key]

    def _without_time(self, planned: PlannedRun, work: RunWork) -> Prediction:
        engine, device, element = planned.config.engine, self.device, _element(planned)
        at_hand = isinstance(device, Machine)
        return Prediction(
            planned=planned,
            engine=engine,
            parameters=work.parameters,
            seconds=dict.fromkeys(PHASES, 0.0),
            bytes=rank_bytes(
                work,
                engine,
                element,
                kind=device.kind,
                program=device.program_bytes_in(engine) if at_hand else device.program_bytes,
                measured=device.training_bytes(work, engine) if at_hand else None,
            ),
            available=device.memory_bytes / (engine.processes if device.kind == "cpu" else 1),
            steps=round(work.step.times),
            devices=engine.nodes if device.kind == "cpu" else engine.world_size,
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
        start = self.device.start_seconds(planned.config.engine) if planned.run_id == self._first else 0.0
        return filling + work.building_seconds + start

    def _exchange(self, work: RunWork, engine: EngineConfig, element: int) -> float:
        """Of a step over a named device's link; at hand it is rehearsed with the step."""
        ranks, trained = engine.world_size, work.held.trained * element
        if isinstance(self.device, Machine) or ranks == 1:
            return 0.0
        gathered = work.held.frozen_bytes if "frozen" in sharded(engine) else 0
        return exchange_seconds(self.device.link.rates(ranks), engine, trained, gathered)

    def _seconds(self, one: Pass, planned: PlannedRun) -> float:
        """Of all times that a pass is done."""
        engine = planned.config.engine
        if isinstance(self.device, Machine):
            return self.device.seconds(one, engine)
        return one.times * self.device.seconds(one.walk, captured=one.kind == "step" and _is_captured(planned.config))

    def _features(self, work: RunWork, planned: PlannedRun) -> float:
        if not work.features:
            return self._filling(work.parameters.prefix if work.prefix_bytes else 0, planned)
        engine, device = planned.config.engine, self.device
        passes = self._seconds(work.features, planned) / engine.world_size
        if not isinstance(device, Machine):
            return passes
        # Tensors are hashed before and after.
        hashing = 2 * work.prefix_bytes * device.hash_seconds / cores_each(engine.processes)
        written = work.stored_bytes * device.write_seconds
        return passes + hashing + written + self._filling(work.parameters.prefix, planned)

    def _filling(self, parameters: int, planned: PlannedRun) -> float:
        if not isinstance(self.device, Machine):
            return 0.0
        each = self.device.copy_seconds if planned.model.weights_path else self.device.draw_seconds
        return parameters * each


def _attempt(planned: PlannedRun, compute: Callable[[], T]) -> T | NotPredicted:
    """A strategy's code may ask for values, which tensors without content have none of; a rank may be killed."""
    try:
        return compute()
    except UserError:
        raise
    except Exception as problem:
        if is_out_of_memory(problem):
            raise
        reason = " ".join([f"{type(problem).__name__}:", *str(problem).strip().splitlines()[:1]])
        return NotPredicted(
            planned,
            UserError(
                f"{name_of(planned)} can't be predicted: {reason.rstrip('.')}. `ftbench run` does it all the same."
            ),
        )


def _is_captured(config: RunConfig) -> bool:
    """Whether a GPU takes steps as one graph."""
    ranks = config.engine.world_size
    if engine_at_work(config.engine, ranks) != "ddp":
        return False
    return not_capturable("cuda", ranks, config.training.gradient_checkpointing, fused=not config.plain) is None


def _element(planned: PlannedRun) -> int:
    """Bytes of a trained parameter."""
    return parameter_dtype(planned.config.precision).itemsize
