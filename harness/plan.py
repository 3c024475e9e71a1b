"""From what was asked to what will run: `auto` decided, inputs checked, every run recognisable.

All this happens once, before any worker starts: a wrong input costs nothing, and all ranks read the same decisions.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

import strategies
from harness import UserError, baselines
from harness.baselines import Baseline
from harness.config import (
    ONE_MACHINE,
    DataConfig,
    EngineConfig,
    Hosts,
    ModelConfig,
    Published,
    RunConfig,
    SuiteConfig,
    TrainingConfig,
)
from harness.data.dataset import Dataset, load_dataset
from harness.data.fetch import NotAvailable, assets_folder
from harness.data.sources import FILE_TYPES
from harness.data.tokenizer import load_tokenizer
from harness.declare import Input, Strategy
from harness.engine.precision import choose
from harness.hosts import check_hosts
from harness.measure.environment import code_sha256
from harness.model.gpt2 import SHAPES
from harness.model.split import split
from harness.model.weights import (
    check_checkpoint,
    checkpoint_path,
    empty_backbone,
    file_sha256,
    find_pretrained,
)
from harness.records import BASELINE, StrategySource

TEXTBOOK_LEARNING_RATE = 5e-5
MINI_LEARNING_RATE = 1e-3


class PlannedRun(BaseModel):
    """A run with every `auto` decided.

    title: for people, the row's name or the strategy. name, source: of the strategy or baseline. identity: hash of all
    that determines the result. used: what of `config` it depends on, all of it for a strategy; choices,
    weights_sha256 and readout likewise. sweep_around: the common learning rate of the sweep that it is a point of.
    """

    run_id: str
    identity: str
    title: str
    name: str
    source: StrategySource
    config: RunConfig
    used: dict[str, Any]
    choices: dict[str, str]
    weights_path: Path | None
    weights_sha256: str | None
    readout: str | None
    sweep_around: float | None = None


class PlannedRow(BaseModel):
    """A row of a suite's file: its runs by identity, and what `harness.config.Row` says of it."""

    name: str
    published: Published | None
    changed: list[str]
    skipped: str | None
    identities: list[str]


class NotHere(UserError):
    """What was asked for is right, and can't be done here; `reason` says so in short."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Plan(BaseModel):
    """rows: of the suite's file; none where it lists none."""

    runs: list[PlannedRun]
    rows: list[PlannedRow] = []
    results: Path
    cache: Path
    hosts: Hosts = ONE_MACHINE


def resolve(suite: SuiteConfig, results: Path, cache: Path, hosts: Hosts = ONE_MACHINE) -> Plan:
    """Decide every `auto`, check every input, name every run.

    Raises UserError for whatever is wrong with what was asked. Of a suite whose file lists rows, those that can't be
    done here are skipped, as long as one is left.
    """
    runs: dict[str, PlannedRun] = {}  # a baseline is the same with every seed, a copied row the same as another
    rows = []
    # Once for all runs that share them: the network and other machines may be asked.
    find = functools.cache(lambda model: _find_model(model, cache))
    find_data = functools.cache(lambda data: _resolve_data(data, cache))
    reach = functools.cache(lambda engine: check_hosts(engine, hosts))
    for row in suite.rows:
        planned, skipped = [], row.skipped
        try:
            planned = (
                [] if skipped else [_planned(row.name, config, find, find_data, reach, cache) for config in row.runs]
            )
        except NotHere as missing:
            if row.name is None:
                raise
            skipped = missing.reason
        runs |= {run.run_id: run for run in planned}
        if row.name is not None:
            identities = [run.identity for run in planned]
            about = row.model_dump(include={"name", "published", "changed"})
            rows.append(PlannedRow(**about, skipped=skipped, identities=identities))
    if not runs:
        reasons = dict.fromkeys(row.skipped for row in rows)
        raise UserError(f"no row of suite {suite.name!r} can run: {'; '.join(reasons)}.")
    return Plan(runs=list(runs.values()), rows=rows, results=results, cache=cache, hosts=hosts)


Found = tuple[ModelConfig, Path | None, str | None, dict[str, str]]


def _find_model(model: ModelConfig, cache: Path) -> Found | NotHere:
    """What is missing is returned, so that it is looked for once: an unreachable hub costs seconds."""
    try:
        resolved, path, choices = resolve_model(model, cache)
    except NotHere as missing:
        return missing
    return resolved, path, file_sha256(path) if path else None, choices


def _planned(
    title: str | None,
    config: RunConfig,
    find: Callable[[ModelConfig], Found | NotHere],
    find_data: Callable[[DataConfig], tuple[DataConfig, str]],
    reach: Callable[[EngineConfig], None],
    cache: Path,
) -> PlannedRun:
    found = find(config.model)
    if isinstance(found, NotHere):
        raise found
    model, weights_path, weights_sha256, choices = found
    data, why_data = find_data(config.data)
    wanted = "fp32" if config.plain and config.precision == "auto" else config.precision
    precision, why_precision = choose(wanted, model.name, torch.cuda.is_available())
    choices = choices | {"data": why_data, "precision": why_precision}
    optimizer = config.optimizer
    if optimizer.learning_rate is None:
        rate = MINI_LEARNING_RATE if model.name == "mini" else TEXTBOOK_LEARNING_RATE
        optimizer = optimizer.model_copy(update={"learning_rate": rate})
    engine = _resolve_engine(config.engine, precision)
    decided = {"model": model, "data": data, "precision": precision, "optimizer": optimizer, "engine": engine}
    config = config.model_copy(update=decided)
    _check_ranks(config)
    reach(engine)
    dataset = load_dataset(data, cache)
    _check_batch(config.training, len(dataset.split["train"]))
    return _identified(title or config.strategy, config, dataset, choices, weights_path, weights_sha256)


def _identified(
    title: str,
    config: RunConfig,
    dataset: Dataset,
    choices: dict[str, str],
    weights_path: Path | None,
    weights_sha256: str | None,
) -> PlannedRun:
    used = config.model_dump(mode="json")
    if config.strategy in baselines.NAMES:
        entry, origin, readout = _baseline(config.strategy), BASELINE, None
        config, used = config.model_copy(update={"seed": 0}), _only(used, ("strategy", *entry.uses))
    else:
        entry = strategies.load(config.strategy, also_known=baselines.NAMES)
        strategy = effective_strategy(config)
        _check_strategy(strategy, config.model.name, len(dataset.source.classes))
        origin, readout = entry.origin, strategy.readout
    model = used.get("model", {})
    depends_on = {"data": True, "model": model, "weights": "weights" in model, "precision": "precision" in used}
    if not depends_on["weights"]:
        weights_path = weights_sha256 = None
    identity = _identity(used, dataset.source.sha256, weights_sha256, entry.sha256)
    what = [entry.name, model.get("name"), Path(config.data.name).stem, f"s{config.seed}", identity[:10]]
    return PlannedRun(
        run_id="-".join(filter(None, what)),
        identity=identity,
        title=title,
        name=entry.name,
        source=StrategySource(origin=origin, sha256=entry.sha256),
        config=config,
        used=used,
        choices={what: why for what, why in choices.items() if depends_on[what]},
        weights_path=weights_path,
        weights_sha256=weights_sha256,
        readout=readout,
    )


def _baseline(name: str) -> Baseline:
    if name in strategies.names():
        raise UserError(
            f"an installed plug-in has the name of the baseline {name!r}: rename its entry point, or uninstall the "
            "package."
        )
    return baselines.load(name)


def effective_strategy(config: RunConfig) -> Strategy:
    """The declared strategy with what the configuration changes: readout, attention, padding, adapter."""
    strategy = strategies.load(config.strategy).strategy
    changes = {
        "readout": config.readout,
        "attention": config.attention,
        "input": Input(config.pad_to) if config.pad_to is not None else None,
    }
    adapter = config.adapter.model_dump(exclude_none=True)
    if adapter:
        if not strategy.adapt:
            raise UserError(
                f"strategy {config.strategy!r} has no adapter: `adapter.rank` and `adapter.alpha` are lora's."
            )
        changes["adapt"] = tuple(replace(declared, **adapter) for declared in strategy.adapt)
    return replace(strategy, **{name: value for name, value in changes.items() if value is not None})


def trainable_parameters(strategy: Strategy, model: str, classes: int) -> int:
    """How many parameters a strategy trains, without allocating any."""
    with torch.device("meta"):
        prefix, suffix = split(empty_backbone(model), strategy, classes)
    return sum(p.numel() for p in [*prefix.parameters(), *suffix.parameters()] if p.requires_grad)


def resolve_model(config: ModelConfig, cache: Path) -> tuple[ModelConfig, Path | None, dict[str, str]]:
    """The model's name and weights, the checkpoint's path if there is one, and why."""
    assets, name, weights = assets_folder(), config.name, config.weights
    reason = "as asked"
    if name == "auto":
        reason = _why_gpt2_is_missing(weights, cache, assets)
        name, reason = ("mini", f"auto: {reason}") if reason else ("gpt2", "auto: at hand")
    elif name != "mini":
        try:
            load_tokenizer(name, cache, assets)
        except NotAvailable as error:
            raise NotHere(
                f"no vocabulary of {name}",
                f"MODEL={name}: {error}. Connect to the network once, set FTBENCH_ASSETS to a "
                "folder that has it, or use MODEL=mini.",
            ) from error
    weights, path, why = _resolve_weights(name, weights, cache, assets)
    choices = {"model": reason, "weights": why}
    return config.model_copy(update={"name": name, "weights": weights}), path, choices


def _why_gpt2_is_missing(weights: str, cache: Path, assets: Path | None) -> str | None:
    try:
        load_tokenizer("gpt2", cache, assets)
    except NotAvailable as error:
        return str(error)
    if weights in ("auto", "pretrained"):
        found = find_pretrained("gpt2", cache, assets)
        return f"the pretrained weights: {found}" if isinstance(found, str) else None
    return None


def _resolve_weights(name: str, given: str, cache: Path, assets: Path | None) -> tuple[str, Path | None, str]:
    if given == "random":
        return given, None, "as asked"
    if given not in ("auto", "pretrained"):
        path = checkpoint_path(given)
        check_checkpoint(name, path)
        return given, path, "as asked"
    found = find_pretrained(name, cache, assets)
    if isinstance(found, Path):
        check_checkpoint(name, found)
        return "pretrained", found, "as asked" if given == "pretrained" else "auto: at hand"
    if given == "pretrained":
        raise NotHere(
            f"no pretrained weights of {name}: {found}",
            f"WEIGHTS=pretrained for {name}: {found}. Connect to the network once, put the file at "
            f"FTBENCH_ASSETS/models/{name}/model.safetensors, give its path as WEIGHTS, or use WEIGHTS=random.",
        )
    return "random", None, f"auto: {found}"


def _resolve_data(config: DataConfig, cache: Path) -> tuple[DataConfig, str]:
    name, reason = config.name, "as asked"
    if name == "auto":
        name, reason = "sms_spam", "auto: at hand"
        try:
            load_dataset(config.model_copy(update={"name": name}), cache)
        except NotAvailable as error:
            name, reason = "synthetic", f"auto: {error}"
    elif name not in ("synthetic", "sms_spam") and not name.endswith(FILE_TYPES):
        raise UserError(
            f"DATA={name!r}: expected auto, synthetic, sms_spam or a path that ends in {', '.join(FILE_TYPES)}."
        )
    resolved = config.model_copy(update={"name": name})
    try:
        load_dataset(resolved, cache)
    except NotAvailable as error:
        raise UserError(
            f"DATA={name}: {error}. Connect to the network once, set FTBENCH_ASSETS to a folder that has it, "
            "or use DATA=synthetic."
        ) from error
    return resolved, reason


def _resolve_engine(config: EngineConfig, precision: str) -> EngineConfig:
    if config.name == "ddp":
        if config.zero_stage is not None:
            raise UserError(f"ZERO={config.zero_stage}: ddp shares no state among ranks; add ENGINE=deepspeed.")
        if config.offload_optimizer:
            raise UserError("engine.offload_optimizer: ddp can't do that; use ENGINE=deepspeed with ZERO=1, 2 or 3.")
        return config
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "ENGINE=deepspeed: the package is not installed; `pip install 'ftbench[deepspeed]'` brings it, "
            "`make setup` too."
        )
    stage = 2 if config.zero_stage is None else config.zero_stage
    if config.offload_optimizer and stage == 0:
        raise UserError("engine.offload_optimizer with ZERO=0: expected ZERO=1, 2 or 3, which hold the state in parts.")
    if precision == "fp64":
        raise UserError(
            "PRECISION=fp64 with ENGINE=deepspeed: it exchanges no float64 gradients; use ENGINE=ddp or PRECISION=fp32."
        )
    return config.model_copy(update={"zero_stage": stage})


def _check_ranks(config: RunConfig) -> None:
    processes, nodes, batch_size = config.engine.processes, config.engine.nodes, config.training.batch_size
    if processes * nodes > batch_size:
        given = f"NPROC={processes}" if nodes == 1 else f"NNODES={nodes} x NPROC={processes}"
        problem = f"{given} ranks can't share a batch of {batch_size}"
        remedy = f'use at most {batch_size} ranks, or a larger batch (SET="training.batch_size=...").'
        raise NotHere(problem, f"{problem}: {remedy}")
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(f"NPROC={processes}, but this machine has {torch.cuda.device_count()} GPU(s): one rank a GPU.")


def _check_batch(training: TrainingConfig, texts: int) -> None:
    if training.epochs and training.drop_last and texts < training.batch_size:
        raise UserError(
            f"training.batch_size={training.batch_size} is more than the {texts} training texts, and an incomplete "
            'batch is dropped: nothing would be trained. Use a smaller batch, or SET="training.drop_last=false".'
        )


def _check_strategy(strategy: Strategy, model: str, classes: int) -> None:
    context = SHAPES[model].context
    if isinstance(strategy.input.pad_to, int) and strategy.input.pad_to > context:
        raise UserError(f"pad_to={strategy.input.pad_to} is beyond the context of {model}: at most {context}.")
    if strategy.build is None:
        trainable_parameters(strategy, model, classes)


def _only(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Of a tree two levels deep what `keys`, dotted where they mean one entry of a part, name."""
    kept = {}
    for key in keys:
        part, dot, entry = key.partition(".")
        kept[part] = {entry: tree[part][entry]} if dot else tree[part]
    return kept


def _identity(used: dict[str, Any], *hashes: str | None) -> str:
    content = json.dumps([used, *hashes, code_sha256()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
