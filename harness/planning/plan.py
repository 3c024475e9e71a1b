"""From what was asked to what will run: `auto` decided, inputs checked, every run recognisable.

All this happens once, before any worker starts: a wrong input costs nothing, and all ranks read the same decisions.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

import strategies
from harness import baselines
from harness.baselines import Baseline
from harness.config.schema import ONE_MACHINE, DataConfig, EngineConfig, Hosts, ModelConfig, RunConfig
from harness.config.suite import Published, SuiteConfig
from harness.data.dataset import Dataset, load_dataset
from harness.data.hub import PREFIX, is_hub, locate
from harness.data.model_folder import content_sha256
from harness.distributed.hosts import check_hosts
from harness.errors import UserError
from harness.files import file_sha256
from harness.measure.code import results_code_sha256
from harness.model.models import model_of
from harness.model.precision import choose
from harness.planning.resolve import CanNotAnswer, NotHere, resolve_data, resolve_engine, resolve_model
from harness.planning.strategy import effective_strategy, frozen_stages
from harness.planning.validate import check_batch, check_padding, check_precision, check_ranks
from harness.results.record import BASELINE, StrategySource

TEXTBOOK_LEARNING_RATE = 5e-5
MINI_LEARNING_RATE = 3e-4


class PlannedRun(BaseModel):
    """A run with every `auto` decided.

    title: for people, the row's name or the strategy. name, source: of the strategy or baseline. identity: hash of all
    that determines the result. used: what of `config` it depends on, all of it for a strategy; choices,
    weights_sha256, readout and attention likewise. frozen_stages: of its prefix; None for a baseline. too_large: it ran
    out of memory before. keep: its trained parameters are written beside its record. sweep_around: the common learning
    rate of the sweep that it is a point of.
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
    attention: str | None
    frozen_stages: int | None
    too_large: bool = False
    keep: bool = False
    sweep_around: float | None = None


class PlannedRow(BaseModel):
    """A row of a suite's file: its runs by identity, and what `harness.config.suite.SuiteRow` says of it."""

    name: str
    published: Published | None
    changed: list[str]
    skipped: str | None
    identities: list[str]


class Plan(BaseModel):
    """runs: as tables show them. rows: of the suite's file; none where it lists none. left_out: why baselines that this
    model can't give are not among them. quiet: print no progress."""

    runs: list[PlannedRun]
    rows: list[PlannedRow] = []
    left_out: list[str] = []
    results: Path
    cache: Path
    hosts: Hosts = ONE_MACHINE
    quiet: bool = False

    def in_order(self) -> list[PlannedRun]:
        """The runs as they are done. A longer prefix goes on from the stored features of a shorter one, which comes
        first; without any a run takes longest. What ran out of memory may take the process with it."""
        return sorted(
            self.runs,
            key=lambda run: (run.too_large, run.source.is_baseline, not run.frozen_stages, run.frozen_stages or 0),
        )


def resolve(suite: SuiteConfig, results: Path, cache: Path, hosts: Hosts = ONE_MACHINE) -> Plan:
    """Decide every `auto`, check every input, name every run.

    Raises UserError for whatever is wrong with what was asked. Of a suite whose file lists rows, those that can't be
    done here are skipped, as long as one is left.
    """
    runs: dict[str, PlannedRun] = {}  # a baseline is the same with every seed, a copied row the same as another
    rows = []
    # Once for all runs that share them: the network and other machines may be asked.
    find = functools.cache(lambda model: find_model(model, cache))
    find_data = functools.cache(lambda data: resolve_data(data, cache))
    reach = functools.cache(lambda engine: check_hosts(engine, hosts))
    left_out: dict[str, None] = {}
    for row in suite.rows:
        planned, skipped = [], row.skipped
        for config in [] if skipped else row.runs:
            try:
                planned.append(_planned(row.name, config, find, find_data, reach, cache))
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
            rows.append(PlannedRow(**about, skipped=skipped, identities=identities))
    if not runs:
        reasons = dict.fromkeys([*left_out, *(row.skipped for row in rows)])
        raise UserError(f"no row of suite {suite.name!r} can run: {'; '.join(reasons)}.")
    return Plan(runs=list(runs.values()), rows=rows, left_out=list(left_out), results=results, cache=cache, hosts=hosts)


Found = tuple[ModelConfig, Path | None, str | None, dict[str, str]]


def find_model(model: ModelConfig, cache: Path) -> Found | NotHere:
    """What is missing is returned, so that it is looked for once: an unreachable hub costs seconds."""
    try:
        resolved, path, choices = resolve_model(model, cache)
    except NotHere as missing:
        return missing
    if is_hub(resolved.name):  # random weights, too, belong to its files: architecture and tokenizer
        return resolved, path, content_sha256(locate(resolved.name, cache), weights=path is not None), choices
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
    engine = resolve_engine(config.engine, precision)
    decided = {"model": model, "data": data, "precision": precision, "optimizer": optimizer, "engine": engine}
    config = config.model_copy(update=decided)
    check_precision(precision, model.name, cache)
    check_ranks(config)
    reach(engine)
    dataset = load_dataset(data, cache)
    check_batch(config.training, len(dataset.split["train"]))
    return _identified(title or config.strategy, config, cache, dataset, choices, weights_path, weights_sha256)


def _identified(
    title: str,
    config: RunConfig,
    cache: Path,
    dataset: Dataset,
    choices: dict[str, str],
    weights_path: Path | None,
    weights_sha256: str | None,
) -> PlannedRun:
    used, model = config.model_dump(mode="json"), model_of(config.model.name, cache)
    if config.strategy in baselines.NAMES:
        entry, origin, readout, attention = _baseline(config.strategy), BASELINE, None, None
        if entry.name == "zero_shot" and not model.is_language_model:
            raise CanNotAnswer(
                "zero_shot: no language model",
                f"zero_shot: {config.model.name} has no output layer, tied to its token embeddings, to ask.",
            )
        config, used = config.model_copy(update={"seed": 0}), _only(used, ("strategy", *entry.uses))
        frozen = None
    else:
        entry = strategies.load(config.strategy, also_known=baselines.NAMES)
        strategy, classes = effective_strategy(config, model), len(dataset.source.classes)
        check_padding(strategy, config.model.name, cache)
        frozen = frozen_stages(strategy, model, classes)
        origin, readout, attention = entry.origin, strategy.readout, strategy.attention
    used_model = used.get("model", {})
    size = used_model.get("name", "")
    depends_on = {
        "data": True,
        "model": used_model,
        "weights": "weights" in used_model,
        "precision": "precision" in used,
    }
    if not depends_on["weights"]:
        weights_path = weights_sha256 = None
    # What a baseline takes of a hub's model are its tokens.
    tokens_sha256 = content_sha256(locate(config.model.name, cache), weights=False) if is_hub(size) else None
    identity = _identity(used, dataset.source.sha256, weights_sha256, entry.sha256, tokens_sha256)
    what = [
        entry.name,
        size.rpartition("/")[2].removeprefix(PREFIX),
        Path(config.data.name).stem,
        f"s{config.seed}",
        short_identity(identity),
    ]
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
        attention=attention,
        frozen_stages=frozen,
    )


def _baseline(name: str) -> Baseline:
    if name in strategies.names():
        raise UserError(
            f"an installed plug-in has the name of the baseline {name!r}: rename its entry point, or uninstall the "
            "package."
        )
    return baselines.load(name)


def _only(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Of a tree two levels deep what `keys`, dotted where they mean one entry of a part, name."""
    kept = {}
    for key in keys:
        part, dot, entry = key.partition(".")
        kept[part] = {entry: tree[part][entry]} if dot else tree[part]
    return kept


def short_identity(identity: str) -> str:
    """How it stands at the end of a run's name."""
    return identity[:10]


def _identity(used: dict[str, Any], *hashes: str | None) -> str:
    content = json.dumps([used, *hashes, results_code_sha256()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
