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

from harness import IA3, Adapter, PrefixTuning, PromptTuning, Strategy, kernels
from harness.config.schema import ModelConfig
from harness.model.adapters.adapted import AdaptedLinear
from harness.model.adapters.prefix import PrefixedAttention
from harness.model.adapters.prompt import PromptedEmbedding
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


# Vectors before rows

LENGTH = 3


@torch.no_grad()
def _give_the_same_vectors(theirs: nn.Module, suffix: Suffix) -> None:
    """PEFT has those of all blocks in one table, [length, values], keys and values of each block in turn."""
    table = theirs.get_parameter("prompt_encoder.default.embedding.weight")
    table.normal_()
    blocks = [module for module in suffix.modules() if isinstance(module, PrefixedAttention)]
    for number, module in enumerate(blocks):
        of_blocks = table.view(LENGTH, 2 * len(blocks), -1)
        module.keys.copy_(of_blocks[:, 2 * number])
        module.values.copy_(of_blocks[:, 2 * number + 1])
    for module in suffix.modules():
        if isinstance(module, PromptedEmbedding):
            module.prompt.copy_(table)


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "gpt_neox", "opt", "bert"])
def test_peft_puts_the_same_vectors_before_rows(tmp_path: Path, family: str, kind: str) -> None:
    """With positions that are learned or rotary, grouped keys, windows shorter than the rows, and an encoder."""
    folder = save_small(tmp_path, family)
    config = {"prefix": peft.PrefixTuningConfig, "prompt": peft.PromptTuningConfig}[kind]
    theirs = _theirs(folder, config(task_type="SEQ_CLS", num_virtual_tokens=LENGTH))
    adapter = {"prefix": PrefixTuning, "prompt": PromptTuning}[kind](LENGTH)
    _, prefix, suffix = _ours(folder, Strategy(adapt=(adapter,)))
    head = next(part for name, part in theirs.named_modules() if name.endswith("modules_to_save.default"))
    assert _trained(prefix, suffix) == _trained(theirs) + (CLASSES if head.bias is None else 0)
    _give_the_same_vectors(theirs, suffix)
    suffix.head.weight.data, suffix.head.bias.data = head.weight.data, torch.zeros(CLASSES)
    ids = torch.from_numpy(np.random.default_rng(3).integers(4, 90, LENGTHS.sum()))
    rows = PackedBatch.packed(LENGTHS)
    kernels.optimize(suffix, CPU, "fp32")
    with torch.no_grad():
        found = suffix(rows.pack(ids), rows)
        for logits, row in zip(found, ids.split(LENGTHS.tolist()), strict=True):
            given = {"input_ids": row[None], "attention_mask": torch.ones(1, len(row))}
            expected = theirs(**given, output_hidden_states=True)
            # BERT's own classifier has a layer more, behind the state that is read.
            right = suffix.head(expected.hidden_states[-1][0, 0]) if family == "bert" else expected.logits[0]
            torch.testing.assert_close(logits, right, atol=1e-5, rtol=1e-5)
