"""What was asked, decided and checked part by part: every `auto`, every value that does not fit another."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from harness.config.schema import DataConfig, EngineConfig, ModelConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable, assets_folder
from harness.data.hub import is_hub, locate
from harness.data.sources import FILE_TYPES
from harness.data.tokenizer import load_tokenizer
from harness.errors import UserError
from harness.model.hub import loading as hub_loading
from harness.model.models import model_of
from harness.model.weights import check_checkpoint, checkpoint_path, find_pretrained


class NotHere(UserError):
    """What was asked for is right, and can't be done here; `reason` says so in short."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CanNotAnswer(NotHere):
    """A baseline that asks something of the model that it does not have."""


def resolve_model(config: ModelConfig, cache: Path) -> tuple[ModelConfig, Path | None, dict[str, str]]:
    """The model's name and weights, the checkpoint's path if there is one, and why."""
    if is_hub(config.name):
        return _resolve_hub_model(config, cache)
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


def _resolve_hub_model(config: ModelConfig, cache: Path) -> tuple[ModelConfig, Path | None, dict[str, str]]:
    try:
        path = locate(config.name, cache)
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
    embedded = model_of(config.name, cache).vocabulary
    known = load_tokenizer(config.name, cache, assets_folder()).size
    if known > embedded:
        raise UserError(
            f"MODEL={config.name}: its tokenizer knows {known} tokens, but it has embeddings of {embedded} only: they "
            "don't belong together; download it again, or choose another model."
        )
    weights = "random" if config.weights == "random" else "pretrained"
    if weights == "pretrained":
        hub_loading.check_weights(path)
    choices = {"model": "as asked", "weights": "as asked" if config.weights == weights else "auto: at hand"}
    return config.model_copy(update={"weights": weights}), path if weights == "pretrained" else None, choices


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


def resolve_data(config: DataConfig, cache: Path) -> tuple[DataConfig, str]:
    name, reason = config.name, "as asked"
    if name == "auto":
        name, reason = "sms_spam", "auto: at hand"
        try:
            load_dataset(config.model_copy(update={"name": name}), cache)
        except NotAvailable as error:
            name, reason = "synthetic", f"auto: {error}"
    elif name not in ("synthetic", "sms_spam") and not name.lower().endswith(FILE_TYPES):
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


def resolve_engine(config: EngineConfig, precision: str) -> EngineConfig:
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
