"""PEFT is the oracle of adapters: as many trained parameters and, with equal values, the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from harness import IA3, Adapter, Strategy, kernels
from harness.config.schema import ModelConfig
from harness.model.adapters.adapted import AdaptedLinear
from harness.model.hub.backbone import HubBackbone
from harness.model.hub.loading import HubModel
from harness.model.packing import PackedBatch
from harness.model.split import Prefix, Suffix, split
from tests.support.hub_models import save_small

CLASSES = 3
LENGTHS = np.array([3, 17, 1, 9])
CPU = torch.device("cpu")


def _theirs(folder: Path, config: peft.PeftConfig) -> nn.Module:
    library = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=CLASSES)
    return peft.get_peft_model(library, config).eval()


def _ours(folder: Path, strategy: Strategy) -> tuple[HubBackbone, Prefix, Suffix]:
    model = HubModel(folder)
    backbone = model.empty()
    model.weights(ModelConfig(name=f"hf:{folder}"), folder).fill(backbone, backbone.stages())
    return backbone, *split(backbone, strategy, CLASSES)


def _trained(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


@torch.no_grad()
def _give_the_same_values(theirs: nn.Module, backbone: HubBackbone, head: nn.Linear) -> int:
    """Random values for what PEFT trains, and the same for ours; how many layers are adapted."""
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter) * 0.3)
    library = theirs.get_submodule("base_model.model")
    blocks = next(list(part) for part in library.modules() if isinstance(part, nn.ModuleList))
    adapted = 0
    for block, of_library in zip(backbone.blocks, blocks, strict=True):
        for name, layer in block.named_modules():
            if isinstance(layer, AdaptedLinear):
                given = of_library.get_submodule(name.removeprefix("layer.")).parameters()
                for target, value in zip(layer.added(), (one for one in given if one.requires_grad), strict=True):
                    target.copy_(value.view_as(target))
                adapted += 1
    head.weight.copy_(library.get_parameter("score.modules_to_save.default.weight"))
    head.bias.zero_()
    return adapted


def _logits(folder: Path, peft_model: nn.Module, prefix: Prefix, suffix: Suffix) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy(np.random.default_rng(3).integers(4, 90, LENGTHS.sum()))
    seen = torch.from_numpy(np.arange(LENGTHS.max()) < LENGTHS[:, None])
    padded = torch.zeros(seen.shape, dtype=torch.int64)
    padded[seen] = ids
    rows = PackedBatch.packed(LENGTHS)
    prefix.place(CPU, "fp32")
    kernels.optimize(suffix, CPU, "fp32")
    with torch.no_grad():
        theirs = peft_model(input_ids=padded, attention_mask=seen.long()).logits
        return theirs, suffix(prefix.features(rows.pack(ids), rows), rows)


def _lora(**options: object) -> Callable[[], peft.PeftConfig]:
    return lambda: peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=12, **options)


QV = {"targets": ("attention.query", "attention.value")}
CASES = {
    "lora_qv": ("llama", _lora(target_modules=["q_proj", "v_proj"]), Adapter(4, 12.0, **QV, scale="alpha / rank")),
    "rslora": (
        "llama",
        _lora(target_modules=["q_proj", "v_proj"], use_rslora=True),
        Adapter(4, 12.0, **QV, scale="alpha / sqrt(rank)"),
    ),
    "fused queries, keys and values": (
        "gpt2",
        _lora(target_modules=["c_attn"], fan_in_fan_out=True),
        Adapter(4, 12.0, targets=("attention.query_key_value",), scale="alpha / rank"),
    ),
    "of one block": (
        "llama",
        _lora(target_modules=["up_proj", "down_proj", "gate_proj"], layers_to_transform=[2]),
        Adapter(4, 12.0, targets=("block.-1.mlp",), scale="alpha / rank"),
    ),
    "dora": (
        "llama",
        _lora(target_modules=["q_proj", "down_proj"], use_dora=True),
        Adapter(4, 12.0, targets=("attention.query", "mlp.contract"), scale="alpha / rank", trains_size=True),
    ),
    "dora with biases": (
        "gpt2",
        _lora(target_modules=["c_attn", "c_fc"], use_dora=True, fan_in_fan_out=True),
        Adapter(
            4,
            12.0,
            targets=("attention.query_key_value", "mlp.expand"),
            scale="alpha / rank",
            trains_size=True,
        ),
    ),
    "ia3": (
        "llama",
        lambda: peft.IA3Config(
            task_type="SEQ_CLS",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        ),
        IA3(outputs=("attention.key", "attention.value"), inputs=("mlp.contract",)),
    ),
    "ia3 with biases": (
        "gpt2",
        lambda: peft.IA3Config(
            task_type="SEQ_CLS",
            target_modules=["c_attn", "mlp.c_proj"],
            fan_in_fan_out=True,
            feedforward_modules=["mlp.c_proj"],
        ),
        IA3(outputs=("attention.query_key_value",), inputs=("mlp.contract",)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_peft_trains_as_many_parameters_and_computes_the_same_logits(tmp_path: Path, case: str) -> None:
    family, config, adapter = CASES[case]
    folder = save_small(tmp_path, family)
    theirs = _theirs(folder, config())
    backbone, prefix, suffix = _ours(folder, Strategy(adapt=(adapter,)))
    # Our head has a bias.
    assert _trained(prefix, suffix) == _trained(theirs) + CLASSES
    assert _give_the_same_values(theirs, backbone, suffix.head) > 0
    expected, found = _logits(folder, theirs, prefix, suffix)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
