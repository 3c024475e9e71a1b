"""Every `auto` of model, data and engine resolved, and what was asked for found or refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from harness.config.places import is_hub
from harness.config.schema import EngineConfig, ModelConfig
from harness.data.downloads import NotAvailable, assets_folder
from harness.errors import UserError
from harness.files import file_sha256
from harness.model.hub.loading import HubModel, check_weights
from harness.model.named.models import Model
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import check_checkpoint, checkpoint_path, find_pretrained
from harness.packages import require
from harness.planning.workspace import Workspace


class NotHere(UserError):
    """What was asked for is right, and can't be done here; `reason` says so in short."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CanNotAnswer(NotHere):
    """A baseline that asks something of the model that it does not have."""


class ResolvedModel(BaseModel):
    """A model with its weights, as a plan holds it.

    config: with nothing left to `auto`. folder: of a model that `transformers` reads, else None. weights_path: of the
    checkpoint; None for random weights. weights_sha256: of the checkpoint, or of all files of a `transformers` model
    that its results depend on. choices: what was chosen for `auto`, and why.
    """

    config: ModelConfig
    folder: Path | None
    weights_path: Path | None
    weights_sha256: str | None
    choices: dict[str, str]

    @property
    def name(self) -> str:
        return self.config.name


def resolve_model(config: ModelConfig, workspace: Workspace) -> ResolvedModel:
    """Raises NotHere where the model or its weights can't be had, UserError where they can't be used."""
    if is_hub(config.name):
        return _resolve_hub_model(config, workspace)
    name, weights = config.name, config.weights
    reason = "as asked"
    if name == "auto":
        missing = _why_gpt2_is_missing(weights, workspace)
        name, reason = ("mini", f"auto: {missing}") if missing else ("gpt2", "auto: at hand")
    elif name != "mini":
        try:
            workspace.tokenizer(name)
        except NotAvailable as error:
            raise NotHere(
                f"no vocabulary of {name}",
                f"MODEL={name}: {error}. Connect to the network once, set FTBENCH_ASSETS to a "
                "folder that has it, or use MODEL=mini.",
            ) from error
    weights, path, why = _resolve_weights(name, weights, workspace)
    return ResolvedModel(
        config=config.model_copy(update={"name": name, "weights": weights}),
        folder=None,
        weights_path=path,
        weights_sha256=file_sha256(path) if path else None,
        choices={"model": reason, "weights": why},
    )


def usable_model(name: str, workspace: Workspace) -> Model:
    """Raises UserError for a model that is unknown, not there or not usable."""
    if name not in SHAPES and not is_hub(name):
        raise UserError(f"unknown model {name!r}: expected hf:... or one of {', '.join(SHAPES)}.")
    if is_hub(name):
        resolve_model(ModelConfig(name=name, weights="random"), workspace)  # is it there, and can it be used?
    return workspace.model(name)


def _resolve_hub_model(config: ModelConfig, workspace: Workspace) -> ResolvedModel:
    try:
        folder = workspace.folder(config.name)
    except NotAvailable as error:
        raise NotHere(
            f"no {config.name}: {error}",
            f"MODEL={config.name}: {error}. Connect to the network once, or name a folder that holds the model "
            "(MODEL=hf:path).",
        ) from error
    if config.init != "gpt2":
        raise UserError(
            f"model.init={config.init}: {config.name} draws random weights as its own code says; leave it out."
        )
    if config.weights not in ("auto", "pretrained", "random"):
        raise UserError(
            f"WEIGHTS={config.weights!r} with MODEL={config.name}: expected auto, pretrained or random; other weights "
            "have a folder of their own, which MODEL names."
        )
    model = workspace.model(config.name)
    assert isinstance(model, HubModel)
    embedded, known = model.vocabulary, workspace.tokenizer(config.name).size
    if known > embedded:
        raise UserError(
            f"MODEL={config.name}: its tokenizer knows {known} tokens, but it has embeddings of {embedded} "
            "only: they don't belong together; download it again, or choose another model."
        )
    weights = "random" if config.weights == "random" else "pretrained"
    if weights == "pretrained":
        check_weights(model)
    return ResolvedModel(
        config=config.model_copy(update={"weights": weights}),
        folder=folder,
        weights_path=folder if weights == "pretrained" else None,
        # Random weights, too, belong to its files: architecture and tokenizer.
        weights_sha256=workspace.content_sha256(config.name, weights=weights == "pretrained"),
        choices={"model": "as asked", "weights": "as asked" if config.weights == weights else "auto: at hand"},
    )


def _why_gpt2_is_missing(weights: str, workspace: Workspace) -> str | None:
    try:
        workspace.tokenizer("gpt2")
    except NotAvailable as error:
        return str(error)
    if weights in ("auto", "pretrained"):
        found = find_pretrained("gpt2", workspace.cache, assets_folder())
        return f"the pretrained weights: {found}" if isinstance(found, str) else None
    return None


def _resolve_weights(name: str, given: str, workspace: Workspace) -> tuple[str, Path | None, str]:
    if given == "random":
        return given, None, "as asked"
    if given not in ("auto", "pretrained"):
        path = checkpoint_path(given)
        check_checkpoint(name, path)
        return given, path, "as asked"
    found = find_pretrained(name, workspace.cache, assets_folder())
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


def resolve_engine(config: EngineConfig, precision: str) -> EngineConfig:
    check_engine(config, precision)
    if config.name != "deepspeed":
        return config
    require("deepspeed", "deepspeed", "ENGINE=deepspeed")
    return config.model_copy(update={"zero_stage": _stage(config)})


def check_engine(config: EngineConfig, precision: str) -> None:
    """Whether an engine can do what is asked of it, wherever it runs. precision: auto, too."""
    if config.shard_frozen and config.name != "fsdp":
        raise UserError(f"engine.shard_frozen: {config.name} can't do that; use ENGINE=fsdp.")
    if config.name != "deepspeed":
        if config.zero_stage is not None:
            raise UserError(f"ZERO={config.zero_stage}: {config.name} has no stages; use ENGINE=deepspeed.")
        if config.offload_optimizer:
            raise UserError(
                f"engine.offload_optimizer: {config.name} can't do that; use ENGINE=deepspeed with ZERO=1, 2 or 3."
            )
        return
    if config.offload_optimizer and _stage(config) == 0:
        raise UserError("engine.offload_optimizer with ZERO=0: expected ZERO=1, 2 or 3, which hold the state in parts.")
    if precision == "fp64":
        raise UserError(
            "PRECISION=fp64 with ENGINE=deepspeed: it exchanges no float64 gradients; use ENGINE=ddp or PRECISION=fp32."
        )


def _stage(config: EngineConfig) -> int:
    return 2 if config.zero_stage is None else config.zero_stage
