"""From what was asked to what will run: every `auto` resolved, inputs checked, every run recognisable.

All this happens once, before any worker starts: a wrong input costs nothing, and all ranks read the same plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

import strategies
from harness import baselines
from harness.config.schema import ONE_MACHINE, Hosts, ModelConfig, RunConfig, TrainingConfig
from harness.config.suite import SuiteConfig
from harness.data.dataset import Dataset
from harness.distributed.hosts import check_hosts
from harness.errors import UserError
from harness.metrics import MetricName
from harness.model.precision import Units, choose, units_at_hand
from harness.planning.data import check_row_length, resolve_data
from harness.planning.identity import identity_of, only, run_id_of
from harness.planning.layers import at_layers
from harness.planning.resolve import CanNotAnswer, NotHere, ResolvedModel, resolve_engine, resolve_model
from harness.planning.strategy import ResolvedStrategy, resolve_strategy
from harness.planning.validate import (
    check_every_class_occurs,
    check_gpus,
    check_padding,
    check_precision,
    check_ranks,
    check_room,
    check_steps,
    check_texts,
)
from harness.planning.workspace import Workspace
from harness.results.record import BASELINE, StrategySource
from harness.results.suites import SavedRow
from harness.tracking.trackers import Tracking

TEXTBOOK_LEARNING_RATE = 5e-5
MINI_LEARNING_RATE = 3e-4


class PlannedRun(BaseModel):
    """A run with nothing left open: workers read it and resolve nothing again.

    title: for people, the row's name or the strategy. name, source: of the strategy or baseline. identity: hash of all
    that determines the result. used: what of `config` it depends on, all of it for a strategy; choices likewise.
    model: without the checkpoint for a baseline that does not depend on it. data_sha256: of the data set's content.
    data_notes: what was found out and chosen of it.
    strategy, frozen_stages (of its prefix): None for a baseline. too_large: it ran out of memory before. save: its
    trained parameters are written beside its record. sweep_around: the common learning rate of the sweep that it is a
    point of. expected_seconds: that it will take; None where nobody has estimated them.
    """

    run_id: str
    identity: str
    title: str
    name: str
    source: StrategySource
    config: RunConfig
    used: dict[str, Any]
    choices: dict[str, str]
    model: ResolvedModel
    data_sha256: str
    data_notes: list[str] = []
    strategy: ResolvedStrategy | None
    frozen_stages: int | None
    too_large: bool = False
    save: bool = False
    sweep_around: float | None = None
    expected_seconds: float | None = None

    @property
    def training(self) -> TrainingConfig:
        """As it is done: without an epoch where no phase of the strategy takes steps."""
        if self.strategy is None or self.strategy.takes_steps:
            return self.config.training
        return self.config.training.model_copy(update={"epochs": 0})

    def dataset(self, workspace: Workspace) -> Dataset:
        """Raises UserError where the data set is not what it was when the run was planned."""
        dataset = workspace.dataset(self.config.data)
        if dataset.source.sha256 != self.data_sha256:
            raise UserError(
                f"data set {self.config.data.name!r} has changed since this suite began: give the command again, which "
                "takes it for other data."
            )
        return dataset


class Plan(BaseModel):
    """runs: as tables show them. rows: of the suite's file; none where it lists none. left_out: why baselines that this
    model can't give are not among them. metric: what the best classifier is chosen by. features: of stored features;
    None: in the cache. jobs, why_jobs: how many runs are done side by side, and the reason where it was asked.
    code_sha256: of the code that determines results. quiet: print no progress. tracking: what logs its runs."""

    runs: list[PlannedRun]
    rows: list[SavedRow] = []
    left_out: list[str] = []
    metric: MetricName = "accuracy"
    results: Path
    cache: Path
    features: Path | None = None
    hosts: Hosts = ONE_MACHINE
    jobs: int = 1
    why_jobs: str = ""
    code_sha256: str
    quiet: bool = False
    tracking: Tracking | None = None

    def in_order(self) -> list[PlannedRun]:
        """The runs as they are done. A longer prefix continues from the stored features of a shorter one, which comes
        first; without any a run takes longest. What ran out of memory may take the process with it."""
        return sorted(
            self.runs,
            key=lambda run: (run.too_large, run.source.is_baseline, not run.frozen_stages, run.frozen_stages or 0),
        )


def resolve(
    suite: SuiteConfig,
    results: Path,
    workspace: Workspace,
    hosts: Hosts | None = ONE_MACHINE,
    units: Units = units_at_hand,
) -> Plan:
    """Resolve every `auto`, check every input, name every run.

    hosts: None where nothing is to run, so that it does not matter which machines and GPUs there are. units: of the
    device.
    Raises UserError for whatever is wrong with what was asked. Of a suite whose file lists rows, those that can't be
    done here are skipped, as long as one is left.
    """
    strategies.names()  # refuses plug-ins that look like a built-in strategy
    planner = _Planner(workspace, hosts, units)
    suite = at_layers(suite, planner.blocks_of)
    runs: dict[str, PlannedRun] = {}  # a baseline is the same with every seed, a copied row the same as another
    rows: list[SavedRow] = []
    left_out: dict[str, None] = {}
    for row in suite.rows:
        planned, skipped = [], row.skipped
        for config in [] if skipped else row.runs:
            try:
                planned.append(planner.planned(row.name, config, suite.metric))
            except NotHere as missing:
                if row.name is not None:
                    planned, skipped = [], missing.reason
                    break
                if not isinstance(missing, CanNotAnswer) or len(row.runs) == 1:
                    raise
                left_out[str(missing)] = None
        runs |= {run.run_id: run for run in planned}
        if row.name is not None:
            identities = [run.identity for run in planned]
            about = row.model_dump(include={"name", "published", "changed"})
            rows.append(SavedRow(**about, skipped=skipped, identities=identities))
    if not runs:
        reasons = dict.fromkeys([*left_out, *(row.skipped for row in rows if row.skipped)])
        raise UserError(f"no row of suite {suite.name!r} can run: {'; '.join(reasons)}.")
    planned_runs = list(runs.values())
    return Plan(
        runs=planned_runs,
        rows=rows,
        left_out=list(left_out),
        metric=suite.metric,
        results=results,
        cache=workspace.cache,
        features=workspace.features,
        hosts=hosts or ONE_MACHINE,
        code_sha256=workspace.code_sha256(),
    )


class _Planner:
    """Plans run after run; what several of them ask of the network or of other machines is asked once."""

    def __init__(self, workspace: Workspace, hosts: Hosts | None, units: Units) -> None:
        self.workspace, self.hosts, self.units = workspace, hosts, units

    def planned(self, title: str | None, config: RunConfig, metric: MetricName) -> PlannedRun:
        """metric: the suite's, by which epochs are judged unless the configuration names one."""
        asked, model = self.workspace.once, self._model(config.model)
        dataset, why_data = asked(
            ("resolved data", config.data), lambda: resolve_data(config.data, self.workspace.dataset)
        )
        wanted = "fp32" if config.plain and config.precision == "auto" else config.precision
        precision, why_precision = choose(wanted, model.name, self.units)
        engine = resolve_engine(config.engine, precision)
        resolved = {"model": model.config, "data": dataset.config, "precision": precision, "engine": engine}
        resolved["optimizer"] = config.optimizer
        if config.optimizer.learning_rate is None:
            rate = MINI_LEARNING_RATE if model.name == "mini" else TEXTBOOK_LEARNING_RATE
            resolved["optimizer"] = config.optimizer.model_copy(update={"learning_rate": rate})
        if config.training.judges_epochs and config.training.validation_metric is None:
            resolved["training"] = config.training.model_copy(update={"validation_metric": metric})
        config = config.model_copy(update=resolved)
        check_precision(precision, model.name, self.workspace)
        check_ranks(config)
        if hosts := self.hosts:
            check_gpus(engine.processes)
            asked(("hosts", engine), lambda: check_hosts(engine, hosts))
        check_texts(config.training, dataset)
        check_row_length(config.data.max_tokens, model.name, self.workspace.model(model.name).context)
        choices = model.choices | {"data": why_data, "precision": why_precision}
        if config.strategy in baselines.NAMES:
            return self._baseline(title or config.strategy, config, model, dataset, choices)
        return self._strategy(title or config.strategy, config, model, dataset, choices)

    def blocks_of(self, config: ModelConfig) -> int:
        """How many blocks the model has. Raises NotHere where it can't be had."""
        return self.workspace.blocks(self._model(config).name)

    def _model(self, config: ModelConfig) -> ResolvedModel:
        model: ResolvedModel | NotHere = self.workspace.once(
            ("resolved model", config), lambda: self._found_model(config)
        )
        if isinstance(model, NotHere):
            raise model
        return model

    def _found_model(self, config: ModelConfig) -> ResolvedModel | NotHere:
        """What is missing is returned, so that it is looked for once: an unreachable hub costs seconds."""
        try:
            return resolve_model(config, self.workspace)
        except NotHere as missing:
            return missing

    def _strategy(
        self, title: str, config: RunConfig, model: ResolvedModel, dataset: Dataset, choices: dict[str, str]
    ) -> PlannedRun:
        backbone = self.workspace.model(model.name)
        strategy = resolve_strategy(config, backbone.attention, also_known=baselines.NAMES)
        check_padding(strategy.pad_to, model.name, self.workspace)
        check_room(strategy.strategy(), strategy.name, config.data.max_tokens, model.name, self.workspace)
        if strategy.takes_steps:
            check_steps(config, config.training.texts or len(dataset.split["train"]))
        if strategy.fits_head:
            check_every_class_occurs(strategy.name, dataset)
        frozen = self.workspace.frozen_stages(strategy.strategy(), model.name, len(dataset.source.classes))
        used = config.model_dump(mode="json")
        files = self.workspace.content_sha256(model.name, weights=False)
        code = self.workspace.code_sha256()
        identity = identity_of(used, dataset.source.sha256, model.weights_sha256, strategy.source.sha256, files, code)
        return PlannedRun(
            run_id=run_id_of(strategy.name, used, config.seed, identity),
            identity=identity,
            title=title,
            name=strategy.name,
            source=strategy.source,
            config=config,
            used=used,
            choices=choices,
            model=model,
            data_sha256=dataset.source.sha256,
            data_notes=dataset.notes,
            strategy=strategy,
            frozen_stages=frozen,
        )

    def _baseline(
        self, title: str, config: RunConfig, model: ResolvedModel, dataset: Dataset, choices: dict[str, str]
    ) -> PlannedRun:
        entry = baselines.load(config.strategy)
        if entry.name == "zero_shot" and not self.workspace.model(model.name).is_language_model:
            raise CanNotAnswer(
                "zero_shot: no language model",
                f"zero_shot: {model.name} has no output layer, tied to its token embeddings, to ask.",
            )
        used = only(config.model_dump(mode="json"), ("strategy", *entry.uses))
        if used.get("training", {}).get("texts"):  # drawn by the seed
            used["seed"] = config.seed
        else:
            config = config.model_copy(update={"seed": 0})
        of_model = used.get("model", {})
        depends_on = {"data": True, "model": bool(of_model), "weights": "weights" in of_model}
        depends_on["precision"] = "precision" in used
        if not depends_on["weights"]:
            model = model.model_copy(update={"weights_path": None, "weights_sha256": None})
        # What a baseline takes of a `transformers` model are its tokens.
        tokens = self.workspace.content_sha256(model.name, weights=False) if of_model else None
        code = self.workspace.code_sha256()
        identity = identity_of(used, dataset.source.sha256, model.weights_sha256, entry.sha256, tokens, code)
        return PlannedRun(
            run_id=run_id_of(entry.name, used, config.seed, identity),
            identity=identity,
            title=title,
            name=entry.name,
            source=StrategySource(origin=BASELINE, sha256=entry.sha256),
            config=config,
            used=used,
            choices={what: why for what, why in choices.items() if depends_on[what]},
            model=model,
            data_sha256=dataset.source.sha256,
            data_notes=dataset.notes,
            strategy=None,
            frozen_stages=None,
        )
