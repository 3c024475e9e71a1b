"""Models of `transformers` read from a folder, or drawn at random; what can't be used is refused."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from harness.config.schema import ModelConfig
from harness.config.strategy import AttentionKind
from harness.data.libraries import import_transformers, one_line
from harness.data.model_files.model_folder import missing_shards, read_config, weight_files
from harness.errors import UserError
from harness.model.backbone import Backbone
from harness.model.hub.backbone import (
    ATTENTION,
    HubBackbone,
    attention_interface,
    context_of,
    family_of,
    is_language_model,
)
from harness.model.hub.families import FAMILIES
from harness.model.meta import on_meta_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class HubModel:
    """A model of the library by its folder. Every use of it raises UserError where it is not mapped."""

    path: Path

    @functools.cached_property
    def config(self) -> PretrainedConfig:
        return _read_config(self.path)

    @property
    def context(self) -> int:
        return context_of(self.config)

    @property
    def vocabulary(self) -> int:
        return self.config.vocab_size

    @property
    def attention(self) -> AttentionKind:
        return family_of(self.config).attention

    @property
    def is_language_model(self) -> bool:
        return is_language_model(self.config)

    @property
    def computes_in_float64(self) -> bool:
        """Rotary positions, and the norms that go with them, are float32 in the library, whatever the rest is."""
        return family_of(self.config).rotary is None

    def empty(self) -> HubBackbone:
        """On the meta device, for `HubWeights.fill`."""
        with on_meta_device():
            return HubBackbone(_built(self.config))

    def weights(self, config: ModelConfig, path: Path | None) -> HubWeights:
        return HubWeights(self, None if path else config.init_seed)


class HubWeights:
    """The model's own weights, or such as its own code draws (seed). Satisfies harness.model.named.weights.Weights."""

    def __init__(self, model: HubModel, seed: int | None) -> None:
        self._model, self._seed = model, seed
        self._left: dict[str, nn.Module] = {}

    @torch.no_grad()
    def fill(self, backbone: Backbone, stages: Iterable[str]) -> None:
        """Hands its tensors over: a stage that is asked for again has all of them read again."""
        for name in stages:
            if name not in self._left:
                self._left = HubBackbone(self._read()).stages()
            given, target = self._left.pop(name), backbone.stages()[name]
            # An adapter's tensors are its own: they are not among those that are given.
            _, surplus = target.load_state_dict(given.state_dict(), strict=False, assign=True)
            for buffer, content in given.named_buffers():  # those that checkpoints leave out, too
                owner, _, own_name = buffer.rpartition(".")
                setattr(target.get_submodule(owner), own_name, content)
            assert not surplus
            assert not any(tensor.is_meta for tensor in target.state_dict().values())

    def _read(self) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            if self._seed is not None:
                torch.manual_seed(self._seed)
                return _built(self._model.config)
            return _loaded(self._model)


def _read_config(path: Path) -> PretrainedConfig:
    """Without dropout: this harness trains without it."""
    transformers = import_transformers()
    attention_interface(transformers)
    _check_mapped(path, read_config(path))
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        _check_mapped(path, config.to_dict())
        for name, value in config.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(config, name, 0.0)
        with on_meta_device():
            HubBackbone(_built(config))
    except UserError:
        raise
    except Exception as error:  # whatever the library makes of a stranger's file
        raise UserError(
            f"MODEL=hf:{path}: its configuration can't be used ({one_line(error)}): download it again, or choose "
            "another model."
        ) from error
    return config


def _check_mapped(path: Path, written: dict[str, Any]) -> None:
    """Raises UserError for what this adapter would get wrong, or can't do."""
    kind = written.get("model_type")
    if written.get("auto_map"):
        problem = "it brings code of its own (`auto_map`, trust_remote_code), which is never run"
    elif written.get("is_encoder_decoder"):
        problem = f"{kind} is an encoder-decoder, which has no one stack of blocks to cut"
    elif kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        problem = f"models of type {kind!r} are not mapped; docs/backbones.md says how to add one to {known}"
    elif _has_other_attention(kind, written):
        problem = f"its attention (is_causal, is_decoder) is not that of other models of type {kind!r}"
    elif written.get("quantization_config"):
        problem = "its weights are quantised, which can't be trained; take the model they were made of, or a GGUF file"
    elif _rope_type(written) in ("longrope", "dynamic"):
        problem = f"rotary positions of type {_rope_type(written)!r} depend on the longest row of a batch"
    elif written.get("word_embed_proj_dim") not in (None, written.get("hidden_size")):
        problem = "it projects its token embeddings to another width, which is not mapped"
    else:
        return
    raise UserError(f"MODEL=hf:{path}: {problem}. Choose another model.")


def _has_other_attention(kind: str, written: dict[str, Any]) -> bool:
    causal = FAMILIES[kind].attention == "causal"
    return written.get("is_causal") not in (None, causal) or (not causal and bool(written.get("is_decoder")))


def _rope_type(written: dict[str, Any]) -> str | None:
    rope = written.get("rope_parameters") or written.get("rope_scaling") or {}
    return rope.get("rope_type") or rope.get("type")


def check_weights(hub_model: HubModel) -> None:
    """Read headers only. Raises UserError where there are no weights that can be read, where a file is incomplete, or
    where a tensor's shape is not the one that the configuration gives it."""
    path = hub_model.path
    missing, files = missing_shards(path), weight_files(path)
    if missing:
        raise UserError(f"MODEL=hf:{path}: {missing[0]!r} is missing ({len(missing)} in all): download it again.")
    if not files:
        raise UserError(
            f"MODEL=hf:{path}: it has no model.safetensors, and pickles, which can run code, are not read; save it "
            "with transformers' save_pretrained, or use WEIGHTS=random."
        )
    with on_meta_device():
        model = _as_saved(hub_model.config)
    expected, prefix = model.state_dict(), f"{model.base_model_prefix}."
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                found = {key: list(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{file} is truncated or damaged ({error}): download it again.") from error
        for key, shape in found.items():
            # What has another name than the library's model is the library's to convert, and to check.
            wanted = expected.get(key.removeprefix(prefix))
            if wanted is not None and shape != list(wanted.shape):
                raise UserError(
                    f"{file}: {key!r} has shape {shape}, config.json asks for {list(wanted.shape)}: they belong to "
                    "different models; download both again."
                )


def _as_saved(config: PretrainedConfig) -> PreTrainedModel:
    """With tensors of the names and shapes that files have."""
    return import_transformers().AutoModel.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)


def _built(config: PretrainedConfig) -> PreTrainedModel:
    return _with_linear_layers(_as_saved(config))


def _loaded(hub_model: HubModel) -> PreTrainedModel:
    path = hub_model.path
    model, info = import_transformers().AutoModel.from_pretrained(
        path,
        config=hub_model.config,
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=ATTENTION,
        output_loading_info=True,
        trust_remote_code=False,
    )
    used = {id(parameter) for stage in HubBackbone(model).stages().values() for parameter in stage.parameters()}
    missing = [name for name in info["missing_keys"] if id(model.get_parameter(name)) in used]
    if missing:
        raise UserError(
            f"MODEL=hf:{path}: its weights lack {missing[0]!r} ({len(missing)} such names in all): download it again, "
            "or use WEIGHTS=random."
        )
    return _with_linear_layers(model)


def _with_linear_layers(model: PreTrainedModel) -> PreTrainedModel:
    """GPT-2's matrices, which the library holds as [inputs, outputs], as Linear: what can be adapted and stored in
    bfloat16."""
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                with on_meta_device():
                    linear = nn.Linear(child.weight.shape[0], child.weight.shape[1])
                linear.weight = nn.Parameter(child.weight.detach().t().contiguous())
                linear.bias = child.bias
                setattr(module, name, linear)
    return model
