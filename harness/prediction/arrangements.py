"""Which arrangement of a run costs least: engines, numbers of ranks, and what saves memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.config.schema import EngineConfig, Precision, RunConfig
from harness.errors import UserError
from harness.measure.environment import cores
from harness.planning.plan import PlannedRun
from harness.planning.resolve import resolve_engine
from harness.prediction.predict import NoMemoryToPredict, Predictor
from harness.prediction.prediction import Prediction

# Of devices that are not at hand.
MOST_RANKS = 8


def advise(predictor: Predictor, asked: Prediction) -> str | None:
    """What to do about a run that does not fit, or that costs less otherwise; None where it is best as it is."""
    best = cheapest(predictor, asked)
    if best is asked:
        return None
    if best is None:
        return f"does not fit, nor does any arrangement of up to {_most_ranks(predictor, asked.planned.config)} ranks"
    what = f"{_variables(best)}: {best.bytes.peak / 1e9:.2f} GB a rank, {best.total_seconds:.0f} s"
    if not asked.fits:
        return f"does not fit; the cheapest that does is {what}"
    saved = 1 - best.device_seconds / asked.device_seconds
    return f"costs least with {what}, {saved:.0%} less time of all devices together"


def _variables(prediction: Prediction) -> str:
    """As they are given to `make bench`."""
    engine, training = prediction.engine, prediction.planned.config.training
    variables = [f"ENGINE={engine.name}", f"NPROC={engine.processes}"]
    if engine.zero_stage is not None:
        variables.insert(1, f"ZERO={engine.zero_stage}")
    settings = {
        "engine.shard_frozen=true": engine.shard_frozen,
        "training.gradient_checkpointing=true": training.gradient_checkpointing,
    }
    given = " ".join(setting for setting, is_set in settings.items() if is_set)
    return " ".join([*variables, *([f'SET="{given}"'] if given else [])])


def cheapest(predictor: Predictor, asked: Prediction) -> Prediction | None:
    """The arrangement that fits and takes the least time of all its devices together; None where none fits.

    One rank that fits costs least: more of them only add what they exchange. Where it does not, what saves memory on
    one rank is tried first, then shares among more.
    """
    if asked.fits and asked.engine.world_size == 1:
        return asked
    for group in _candidates(asked, predictor):
        fitting = list(_fitting(predictor, group))
        if fitting:
            return min([*([asked] if asked.fits else []), *fitting], key=lambda one: one.device_seconds)
    return asked if asked.fits else None


def _fitting(predictor: Predictor, candidates: Sequence[PlannedRun]) -> Iterator[Prediction]:
    for candidate in candidates:
        try:
            one = predictor.of_run(candidate)
        except NoMemoryToPredict:  # what is too large in parts is too large
            continue
        if isinstance(one, Prediction) and one.fits:
            yield one


def _most_ranks(predictor: Predictor, config: RunConfig) -> int:
    return min(cores() if predictor.device.kind == "cpu" else MOST_RANKS, config.training.batch_size)


def _candidates(asked: Prediction, predictor: Predictor) -> Iterator[list[PlannedRun]]:
    """In groups, the cheaper ones first."""
    planned = asked.planned
    config = planned.config
    alone = config.model_copy(update={"engine": EngineConfig()})
    yield [_with(planned, alone)]
    saving = config.training.model_copy(update={"gradient_checkpointing": True})
    yield [_with(planned, alone.model_copy(update={"training": saving}))]
    ranks = 2
    while ranks <= _most_ranks(predictor, config):
        yield [
            _with(planned, config.model_copy(update={"engine": engine, "training": training}))
            for training in (config.training, saving)
            for engine in _sharding(ranks, config.precision, asked.parameters.frozen > 0)
        ]
        ranks *= 2


def _sharding(ranks: int, precision: Precision, with_frozen: bool) -> list[EngineConfig]:
    """Those that can be used here. with_frozen: of a suffix some of whose parameters are frozen."""
    wanted = [EngineConfig(name="fsdp", processes=ranks)]
    wanted += [EngineConfig(name="fsdp", processes=ranks, shard_frozen=True)] if with_frozen else []
    wanted += [EngineConfig(name="deepspeed", zero_stage=stage, processes=ranks) for stage in (1, 2, 3)]
    usable = []
    for engine in wanted:
        try:
            usable.append(resolve_engine(engine, precision))
        except UserError:
            continue  # what this installation or precision rules out is no candidate
    return usable


def _with(planned: PlannedRun, config: RunConfig) -> PlannedRun:
    return planned.model_copy(update={"config": config})
