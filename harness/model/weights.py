"""Where GPT-2's parameters come from: a published or local checkpoint (safetensors only), or chance."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from harness import UserError
from harness.model.gpt2 import GPT2, SHAPES, initialise

Init = Literal["gpt2", "pytorch"]
HUB_REPOSITORIES = {name: f"openai-community/{name}" for name in SHAPES if name != "mini"}
HUB_TIMEOUT_SECONDS = 5
_READABLE = ("F32", "F16", "BF16")
_SAFE = "only safetensors is read: save it with transformers' save_pretrained(..., safe_serialization=True)"


def random_backbone(name: str, init: Init, seed: int) -> GPT2:
    """A float32 GPT-2 of size `name`, initialised by GPT-2's rule or by PyTorch's defaults. Same seed, same bits."""
    if init == "pytorch":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GPT2(SHAPES[name])
    model = _empty(name)
    initialise(model, torch.Generator().manual_seed(seed))
    return model


def load_backbone(name: str, path: Path) -> GPT2:
    """A float32 GPT-2 of size `name` from a checkpoint in the published Hugging Face layout.

    Keys may carry the `transformer.` prefix; stored mask buffers and the tied output layer are ignored; the
    published Conv1D matrices are [inputs, outputs] and are transposed. Float16 and bfloat16 are widened.

    Raises UserError for a file that is missing, truncated, a pickle, or of another shape.
    """
    check_checkpoint(name, path)
    model = _empty(name)
    with safe_open(path, framework="pt") as file, torch.no_grad():
        stored = _stored_names(file)
        for published, parameters in _published_names(model):
            tensor = file.get_tensor(stored[published])
            oriented = tensor.t() if _is_conv1d(published) else tensor
            for parameter, part in zip(parameters, oriented.chunk(len(parameters)), strict=True):
                parameter.copy_(part)
    return model


def check_checkpoint(name: str, path: Path) -> None:
    """Read the header only: every tensor of a GPT-2 of size `name` is there, in its shape and a readable type.

    Raises UserError where it is not.
    """
    with torch.device("meta"):
        targets = dict(_published_names(GPT2(SHAPES[name])))
    with _open(path) as file:
        stored = _stored_names(file)
        _check_keys(path, set(stored), set(targets))
        for published, parameters in targets.items():
            _check_tensor(path, published, file.get_slice(stored[published]), parameters)


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise UserError(
            f"checkpoint {str(path)!r} does not exist: give a .safetensors file or a folder that holds one."
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
    """The published checkpoint of size `name`: from the assets folder, the cache or the hub; else the reason."""
    if name not in HUB_REPOSITORIES:
        return f"{name!r} has no published weights"
    if assets and (mirrored := assets / "models" / name / "model.safetensors").is_file():
        return mirrored
    # Read when huggingface_hub is imported, so that an unreachable hub is noticed soon.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_SECONDS))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = Path(huggingface_hub.hf_hub_download(HUB_REPOSITORIES[name], "model.safetensors", cache_dir=cache))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        return f"the Hugging Face hub could not be reached ({type(error).__name__})"
    # The hub names the blob of a large file by its sha256.
    expected, actual = found.resolve().name, file_sha256(found)
    if len(expected) == 64 and expected != actual:
        raise UserError(
            f"download {found} is damaged (sha256 {actual}, the hub says {expected}): delete it, try again."
        )
    return found


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _empty(name: str) -> GPT2:
    with torch.device("meta"):
        model = GPT2(SHAPES[name])
    return model.to_empty(device="cpu")


def _stored_names(file: safe_open) -> dict[str, str]:
    """Published names, without the prefix that some files have, to the names in the file."""
    return {key.removeprefix("transformer."): key for key in file.keys()}  # noqa: SIM118 (no dict)


def _published_names(model: GPT2) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Each key of the published layout with the parameters it fills: several where the file fuses them."""
    yield "wte.weight", [model.embeddings.token.weight]
    yield "wpe.weight", [model.embeddings.position.weight]
    for index, block in enumerate(model.blocks):
        attention, mlp = block.attention, block.mlp
        parts = {
            "ln_1": [block.attention_norm],
            "attn.c_attn": [attention.query, attention.key, attention.value],
            "attn.c_proj": [attention.output],
            "ln_2": [block.mlp_norm],
            "mlp.c_fc": [mlp.expand],
            "mlp.c_proj": [mlp.contract],
        }
        for published, modules in parts.items():
            yield f"h.{index}.{published}.weight", [module.weight for module in modules]
            yield f"h.{index}.{published}.bias", [module.bias for module in modules]
    yield "ln_f.weight", [model.final_norm.weight]
    yield "ln_f.bias", [model.final_norm.bias]


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


def _is_conv1d(published: str) -> bool:
    """Whether the file holds the matrix as [inputs, outputs]: all of the blocks' do, norms and biases have no sides."""
    return published.startswith("h.") and published.endswith(".weight") and ".ln_" not in published


def _check_tensor(path: Path, published: str, stored: Any, parameters: list[nn.Parameter]) -> None:
    shape = parameters[0].shape
    expected = [shape[0] * len(parameters), *shape[1:]]
    if _is_conv1d(published):
        expected.reverse()
    if stored.get_dtype() not in _READABLE or stored.get_shape() != expected:
        raise UserError(
            f"checkpoint {str(path)!r}: {published!r} is {stored.get_dtype()} {stored.get_shape()}, expected a tensor "
            f"of shape {expected} in one of {', '.join(_READABLE)}; choose the size it was saved from with MODEL."
        )
