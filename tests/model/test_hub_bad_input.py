"""What can be wrong with a model that `hf:` names: an error with the remedy, before anything is trained."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.hub_models import save_small
from tests.support.runs import ROOT, assert_refused


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model of a test's own."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def _change(file: Path, **changes: object) -> None:
    """Of a JSON file; None: takes the key away."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _config_is(**changes: object) -> Callable[[Path], None]:
    return lambda folder: _change(folder / "config.json", **changes)


def _lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    shards = {"embed_tokens.weight": "model-1.safetensors", "norm.weight": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), ["no config.json", "hf: and a hub id"]),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json is not JSON", "download"]),
        (_config_is(model_type="t5", is_encoder_decoder=True), ["t5 is an encoder-decoder"]),
        (_config_is(model_type="vit"), ["'vit' are not mapped", "llama, mistral", "docs/backbones.md"]),
        (_config_is(auto_map={"AutoModel": "own.py"}), ["code of its own", "never run"]),
        (_config_is(model_type="bert", is_decoder=True), ["its attention (is_causal, is_decoder)"]),
        (_config_is(is_causal=False), ["its attention (is_causal, is_decoder)"]),
        (_config_is(rope_parameters={"rope_type": "longrope"}), ["'longrope' depend on the longest row"]),
        (_config_is(quantization_config={"quant_method": "awq"}), ["its weights are quantised"]),
        (_config_is(hidden_size="wide"), ["its configuration can't be used", "hidden_size"]),
        (_config_is(num_attention_heads=5), ["its configuration can't be used"]),
        (_config_is(vocab_size=9), ["knows 94 tokens", "embeddings of 9 only"]),
        (lambda folder: (folder / "tokenizer.json").unlink(), ["no tokenizer (tokenizer.json)"]),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ["its tokenizer can't be used"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["no model.safetensors", "WEIGHTS=random"]),
        (_cut_weights, ["model.safetensors is truncated or damaged"]),
        (_lose_a_shard, ["'model-2.safetensors' is missing"]),
        (_config_is(intermediate_size=40), ["has shape [32, 48], config.json asks for [32, 40]", "different models"]),
    ],
)
def test_a_model_that_can_not_be_used(refused: Callable, folder: Path, spoil: Callable, told: list[str]) -> None:
    spoil(folder)
    message = refused(model=f"hf:{folder}")
    for part in told:
        assert part in message


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("hf:", ["'hf:'"]),
        ("hf:./nowhere/at/all", ["'nowhere/at/all' does not exist", "a folder with a config.json"]),
        ("hf:nowhere.gguf", ["does not exist"]),
        (f"hf:{ROOT / 'README.md'}", ["neither a folder nor a GGUF file"]),
        ("hf:foo--bar", ["can't be the name of a model"]),
        ("hf:ftbench/no-such-model", ["hub", "hf:"]),  # unreachable here, unknown where there is a network
    ],
)
def test_a_name_that_names_nothing(refused: Callable, model: str, told: list[str]) -> None:
    message = refused(model=model)
    for part in told:
        assert part in message


def test_a_truncated_gguf(refused: Callable, tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "whole.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-2000])
    for weights in ("auto", "random"):
        assert "cut.gguf is damaged" in refused("--weights", weights, model=f"hf:{cut}")


def test_settings_that_a_model_of_the_hub_does_not_take(refused: Callable, folder: Path) -> None:
    model = f"hf:{folder}"
    assert "expected auto, pretrained or random" in refused("--weights", "other.safetensors", model=model)
    assert "as its own code says" in refused("--set", "model.init=pytorch", model=model)
    assert "at most 64" in refused("--set", "pad_to=65", model=model)
    assert "no output layer" in refused("--strategy", "zero_shot", model=model)
    assert "no output layer" in refused("--strategy", "zero_shot", "--seeds", "0,1", model=model)
    assert "rotary positions in float32" in refused("--precision", "fp64", model=model)


@pytest.mark.parametrize("command", ["check-weights", "list"])
def test_commands_that_look_at_a_model(run_cli: Callable, tmp_path: Path, command: str) -> None:
    code, _, told = run_cli(command, "--model", "hf:ftbench/no-such-model", results=None)
    assert_refused(code, "", told)


def test_padding_without_a_pad_token(refused: Callable, folder: Path) -> None:
    _change(folder / "tokenizer_config.json", pad_token=None)
    assert "no pad token" in refused("--strategy", "last_padded", model=f"hf:{folder}")


def test_without_the_library(refused: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'ftbench[hf]'" in refused(model=f"hf:{folder}")
