"""Where GPT-2's parameters come from: a published or local checkpoint (safetensors only), or chance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from harness.config.schema import ModelConfig
from harness.data.libraries import import_huggingface_hub
from harness.data.model_files.hub import check_reachable
from harness.errors import UserError
from harness.files import file_sha256, is_disk_error, unwritable
from harness.model.backbone import Backbone
from harness.model.gpt2 import GPT2, Embeddings, GPT2Block
from harness.model.meta import on_meta_device
from harness.model.named.shapes import SHAPES

Init = Literal["gpt2", "pytorch"]
Leaf = nn.Linear | nn.LayerNorm | nn.Embedding
HUB_REPOSITORIES = {name: f"openai-community/{name}" for name in SHAPES if name != "mini"}
MINI_CHECKPOINT = Path(__file__).parents[2] / "assets" / "mini.safetensors"
_READABLE = ("F32", "F16", "BF16")
_SAFE = "only safetensors is read: save it with transformers' save_pretrained(..., safe_serialization=True)"


class Weights(Protocol):
    """Where a backbone's parameters come from; any stage can be filled without the others."""

    def fill(self, backbone: Backbone, stages: Iterable[str]) -> None:
        """Give the named stages, which may still be on the meta device, float32 parameters on the CPU."""
        ...


@dataclass(frozen=True)
class RandomWeights:
    """Each parameter is drawn from a generator of its own: same seed, same bits, whichever stages are filled.

    gpt2: N(0, 0.02) for matrices, projections onto the residual stream scaled by 1 / sqrt(2 * blocks), biases 0, norms
    1 (Radford et al., 2019, section 2.3; the published code). pytorch: what PyTorch's modules draw by themselves.
    """

    init: Init
    seed: int

    def fill(self, backbone: Backbone, stages: Iterable[str]) -> None:
        onto_residual = 0.02 / math.sqrt(2 * len(backbone.blocks))
        for stage, published, module in _leaves(backbone, stages):
            _make_real(module)
            own_seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{stage}/{published}".encode()).digest()[:7])
            if self.init == "pytorch":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(own_seed)
                    module.reset_parameters()
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            else:
                deviation = onto_residual if published.endswith("c_proj") else 0.02
                nn.init.normal_(module.weight, std=deviation, generator=torch.Generator().manual_seed(own_seed))
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Checkpoint:
    """A file in the published Hugging Face layout.

    Keys may carry the `transformer.` prefix; stored mask buffers and the tied output layer are ignored; the
    published Conv1D matrices are [inputs, outputs] and are transposed. Float16 and bfloat16 are widened.
    """

    path: Path

    @torch.no_grad()
    def fill(self, backbone: Backbone, stages: Iterable[str]) -> None:
        wanted = {stage: backbone.stages()[stage] for stage in stages}
        with safe_open(self.path, framework="pt") as file:
            stored = _stored_names(file)
            for stage, module in wanted.items():
                for published, targets in _published_modules(stage, module):
                    for target in targets:
                        _make_real(target)
                    for kind in _parameter_names(targets[0]):
                        tensor = file.get_tensor(stored[f"{published}.{kind}"])
                        oriented = tensor.t() if _is_conv1d(targets[0], kind) else tensor
                        for target, part in zip(targets, oriented.chunk(len(targets)), strict=True):
                            getattr(target, kind).copy_(part)


@torch.no_grad()
def published_tensors(backbone: Backbone) -> dict[str, torch.Tensor]:
    """All parameters under their published names and in the published layout: what `Checkpoint` reads."""
    return {
        f"{published}.{kind}": _published_tensor(modules, kind)
        for stage, module in backbone.stages().items()
        for published, modules in _published_modules(stage, module)
        for kind in _parameter_names(modules[0])
    }


def _published_tensor(modules: list[Leaf], kind: str) -> torch.Tensor:
    fused = torch.cat([getattr(module, kind) for module in modules])
    return fused.t().contiguous() if _is_conv1d(modules[0], kind) else fused


def weights_of(config: ModelConfig, path: Path | None) -> Weights:
    return Checkpoint(path) if path else RandomWeights(config.init, config.init_seed)


def empty_backbone(name: str) -> GPT2:
    """A GPT-2 of size `name` on the meta device, for `Weights.fill`."""
    with on_meta_device():
        return GPT2(SHAPES[name])


def filled_backbone(name: str, weights: Weights) -> GPT2:
    """A float32 GPT-2 of size `name` with all its parameters."""
    backbone = empty_backbone(name)
    weights.fill(backbone, backbone.stages())
    return backbone


def check_checkpoint(name: str, path: Path) -> None:
    """Read the header only: every tensor of a GPT-2 of size `name` is there, in its shape and a readable type.

    Raises UserError where it is not.
    """
    backbone = empty_backbone(name)
    targets = {
        f"{published}.{kind}": (modules, kind)
        for stage, module in backbone.stages().items()
        for published, modules in _published_modules(stage, module)
        for kind in _parameter_names(modules[0])
    }
    with _open(path) as file:
        stored = _stored_names(file)
        _check_keys(path, set(stored), set(targets))
        for key, (modules, kind) in targets.items():
            _check_tensor(path, key, file.get_slice(stored[key]), modules, kind)


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise UserError(
            f"checkpoint {str(path)!r} does not exist: give a .safetensors file, a folder that holds a "
            "model.safetensors, or one of auto, pretrained, random."
        )
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise UserError(f"checkpoint {str(path)!r} is a pickle, which can run code when it is loaded; {_SAFE}.")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise UserError(
            f"checkpoint {str(path)!r} is truncated or is no safetensors file ({error}); "
            f"download or save it again; {_SAFE}."
        ) from error


def checkpoint_path(given: str) -> Path:
    """The safetensors file that the path `given` names: itself, or `model.safetensors` in it."""
    path = Path(given).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def find_pretrained(name: str, cache: Path, assets: Path | None) -> Path | str:
    """The pretrained checkpoint of size `name`: mini's ships with the harness, the published ones come from the assets
    folder, the cache or the hub; else the reason."""
    if name == "mini":
        return MINI_CHECKPOINT
    if assets and (mirrored := assets / "models" / name / "model.safetensors").is_file():
        return mirrored
    hub = import_huggingface_hub()
    published = {"repo_id": HUB_REPOSITORIES[name], "filename": "model.safetensors"}
    in_cache = isinstance(hub.try_to_load_from_cache(**published, cache_dir=cache), str)
    try:
        if not in_cache:
            check_reachable(published["repo_id"], published["filename"])
        found = Path(hub.hf_hub_download(**published, cache_dir=cache, local_files_only=in_cache))
    except Exception as error:  # whatever the network, or the library that talks to it, makes of it
        if is_disk_error(error):
            raise unwritable(cache, error) from error
        return f"the Hugging Face hub could not be reached ({type(error).__name__})"
    # The hub names the blob of a large file by its sha256.
    expected, actual = found.resolve().name, file_sha256(found)
    if len(expected) == 64 and expected != actual:
        raise UserError(
            f"download {found} is damaged (sha256 {actual}, the hub says {expected}): delete it, try again."
        )
    return found


def _stored_names(file: safe_open) -> dict[str, str]:
    """Published names, without the prefix that some files have, to the names in the file."""
    return {key.removeprefix("transformer."): key for key in file.keys()}  # noqa: SIM118 (no dict)


def _published_modules(stage: str, module: nn.Module) -> Iterator[tuple[str, list[Leaf]]]:
    """The modules of a stage by their published name: several where the published file fuses them."""
    kind, _, index = stage.partition(".")
    if kind == "embeddings":
        assert isinstance(module, Embeddings)
        yield "wte", [module.token]
        yield "wpe", [module.position]
    elif kind == "final_norm":
        assert isinstance(module, nn.LayerNorm)
        yield "ln_f", [module]
    else:
        assert isinstance(module, GPT2Block)
        attention, mlp = module.attention, module.mlp
        yield f"h.{index}.ln_1", [module.attention_norm]
        yield f"h.{index}.attn.c_attn", [attention.query, attention.key, attention.value]
        yield f"h.{index}.attn.c_proj", [attention.output]
        yield f"h.{index}.ln_2", [module.mlp_norm]
        yield f"h.{index}.mlp.c_fc", [mlp.expand]
        yield f"h.{index}.mlp.c_proj", [mlp.contract]


def _leaves(backbone: Backbone, stages: Iterable[str]) -> Iterator[tuple[str, str, Leaf]]:
    """(stage, a name that distinguishes the parts of a fused matrix, module) for every module that holds parameters."""
    modules = backbone.stages()
    for stage in stages:
        for published, parts in _published_modules(stage, modules[stage]):
            for number, part in enumerate(parts):
                yield stage, published if len(parts) == 1 else f"{published}.{number}", part


def _parameter_names(module: Leaf) -> tuple[str, ...]:
    return ("weight",) if isinstance(module, nn.Embedding) else ("weight", "bias")


def _make_real(module: Leaf) -> None:
    """Replace parameters that are not float32 ones on the CPU by such, not yet filled.

    They may be on the meta device, or placed before in a run's precision: what is drawn depends on the type.
    """
    for name in _parameter_names(module):
        old = getattr(module, name)
        if old.device.type != "cpu" or old.dtype != torch.float32:
            real = torch.empty(old.shape, dtype=torch.float32)
            setattr(module, name, nn.Parameter(real, requires_grad=old.requires_grad))


def _is_conv1d(module: Leaf, kind: str) -> bool:
    """Whether the file holds the matrix as [inputs, outputs]."""
    return isinstance(module, nn.Linear) and kind == "weight"


def _check_keys(path: Path, stored: set[str], expected: set[str]) -> None:
    ignored = {key for key in stored if key == "lm_head.weight" or key.endswith((".attn.bias", ".attn.masked_bias"))}
    missing, surplus = sorted(expected - stored), sorted(stored - expected - ignored)
    if missing or surplus:
        what = f"lacks {missing[0]!r}" if missing else f"has the unknown tensor {surplus[0]!r}"
        count = len(missing) + len(surplus)
        raise UserError(
            f"checkpoint {str(path)!r} does not fit this model: it {what} ({count} such names in all). "
            f"Expected GPT-2's published names; choose the size it was saved from with MODEL ({', '.join(SHAPES)})."
        )


def _check_tensor(path: Path, key: str, stored: Any, modules: list[Leaf], kind: str) -> None:
    shape = getattr(modules[0], kind).shape
    expected = [shape[0] * len(modules), *shape[1:]]
    if _is_conv1d(modules[0], kind):
        expected.reverse()
    if stored.get_dtype() not in _READABLE or stored.get_shape() != expected:
        raise UserError(
            f"checkpoint {str(path)!r}: {key!r} is {stored.get_dtype()} {stored.get_shape()}, expected a tensor "
            f"of shape {expected} in one of {', '.join(_READABLE)}; choose the size it was saved from with MODEL."
        )
