"""Kernels for a GPU, on a CPU: values and gradients of the plain modules, and half of their operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strategies
from harness import kernels
from harness.config.strategy import Strategy
from harness.kernels.gpu.fused_block import FusedBlock
from harness.kernels.gpu.fused_lora import FusedLoRAAttention
from harness.model.adapters.lora import LoRALinear
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import BatchShape, PackedBatch
from harness.model.precision import store_frozen
from harness.model.split import Suffix, split

LENGTHS = np.array([3, 40, 1, 9])
BATCH = PackedBatch.packed(LENGTHS, BatchShape(rows=4, tokens=96, width=40, filler_rows=2))
IDS = BATCH.pack(torch.arange(int(LENGTHS.sum())))


def _suffix(strategy: Strategy) -> Suffix:
    """Of an empty prefix; adapters do something."""
    torch.manual_seed(1)
    prefix, suffix = split(filled_backbone("mini", RandomWeights("pytorch", 0)), strategy, classes=3)
    assert not prefix.stages
    for module in suffix.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.up, std=0.02)
    return suffix


def _gradients(suffix: Suffix) -> list[Tensor]:
    """Of all trained parameters, behind the logits."""
    logits = suffix(IDS, BATCH)
    trained = [parameter for parameter in suffix.parameters() if parameter.requires_grad]
    return [logits, *torch.autograd.grad(logits.square().sum(), trained)]


@pytest.mark.parametrize(("name", "kernel"), [("full", FusedBlock), ("lora", FusedLoRAAttention)])
def test_fused_layers_compute_the_same_and_are_restored(name: str, kernel: type[nn.Module]) -> None:
    suffix = _suffix(strategies.load(name).strategy).double()
    plain, types = _gradients(suffix), [type(module) for module in suffix.modules()]
    kernels.fuse(suffix)
    assert sum(type(module) is kernel for module in suffix.modules()) == 4, "one in each block"
    for found, wanted in zip(_gradients(suffix), plain, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    kernels.restore(suffix)
    assert [type(module) for module in suffix.modules()] == types


@pytest.mark.parametrize(("name", "trained"), [("full", ""), ("full", "bias"), ("full", "query.weight"), ("lora", "")])
def test_fused_layers_in_bfloat16_differ_by_its_rounding(name: str, trained: str) -> None:
    """Against float32, as far as the plain layers do, at most half as far again. trained: the end of the names of what
    is trained, where that is not all; the rest is stored in bfloat16."""
    suffix = _suffix(strategies.load(name).strategy)
    for path, parameter in suffix.stages.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and path.endswith(trained))
    exact = _gradients(suffix.bfloat16().float())
    store_frozen(suffix, "bf16")

    def error() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            found = _gradients(suffix)
        assert {part.dtype for part in found} == {torch.float32}
        pairs = zip(found, exact, strict=True)
        return max(float(((one - other).norm() / other.norm()).detach()) for one, other in pairs)

    plain = error()
    kernels.fuse(suffix)
    assert error() < 1.5 * plain


def test_what_a_strategy_has_put_in_a_block_stays() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    suffix = _suffix(strategies.load("full").strategy)
    hooked, replaced = suffix.get_submodule("stages.1.mlp.expand"), suffix.get_submodule("stages.2.attention")
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    replaced.add_module("key", Doubled(128, 128))
    plain = suffix(IDS, BATCH)
    kernels.fuse(suffix)
    assert [isinstance(stage, FusedBlock) for stage in suffix.stages] == [False, False, False, True, True, False]
    torch.testing.assert_close(suffix(IDS, BATCH), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_layers_that_hooks_bring_run_by_themselves(name: str) -> None:
    """As those of DeepSpeed's ZeRO 3, whose hooks come after the kernels."""
    suffix = _suffix(strategies.load(name).strategy)
    plain = suffix(IDS, BATCH)
    kernels.fuse(suffix)
    met: set[nn.Module] = set()
    for module in suffix.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda module, inputs: met.add(module))
    torch.testing.assert_close(suffix(IDS, BATCH), plain, atol=1e-5, rtol=1e-5)
    assert len(met) == 4 * 6 + 1, "every layer"
