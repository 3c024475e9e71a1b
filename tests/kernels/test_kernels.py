"""Each kernel gives what it replaces gives, under the same parameter names, and can be taken out again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strategies
from harness import kernels
from harness.config.strategy import Strategy
from harness.kernels.cpu import onednn
from harness.kernels.cpu.attention import CPUAttention
from harness.kernels.cpu.few_rows import FEW_ROWS, FewRowsLinear, few_rows
from harness.kernels.cpu.packed_linear import PackedLinear, PackedMLP, packed
from harness.kernels.one_query import KeylessAttention, OneQueryAttention, OneQueryBlock, ReadingBlock
from harness.kernels.replacing import Kernel, replace_below, restore_below
from harness.model.adapters.lora import LoRALinear
from harness.model.attention import DotProductAttention
from harness.model.gpt2 import MLP
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.model.split import Part, Prefix, Suffix, split

CPU = torch.device("cpu")
LENGTHS = np.array([3, 40, 1, 9])  # a rectangle of which a third holds tokens
BATCH = PackedBatch.packed(LENGTHS)
IDS = BATCH.pack(torch.arange(int(LENGTHS.sum())))
BUILT_IN = strategies.built_in_names()
needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="this processor does not have these kernels")


def _parts(strategy: Strategy, precision: str = "fp64") -> tuple[Prefix, Suffix]:
    torch.manual_seed(1)
    prefix, suffix = split(filled_backbone("mini", RandomWeights("pytorch", 0)), strategy, classes=3)
    prefix.place(CPU, precision)
    return prefix, suffix.double() if precision == "fp64" else suffix


def _logits(prefix: Prefix, suffix: Suffix) -> Tensor:
    features = prefix.features(IDS, BATCH)
    reads = prefix.facts.reads
    return suffix(features, PackedBatch.packed(np.ones(len(LENGTHS), dtype=np.int64)) if reads else BATCH)


def _kernels(*parts: nn.Module) -> list[Kernel]:
    return [module for part in parts for module in part.modules() if isinstance(module, Kernel)]


def _types(part: Part) -> list[type[nn.Module]]:
    return [type(module) for module in part.modules()]


@pytest.mark.parametrize("name", BUILT_IN)
def test_optimized_parts_compute_the_same_and_are_restored(name: str) -> None:
    parts = _parts(strategies.load(name).strategy)
    before = [(_types(part), list(part.state_dict())) for part in parts]
    plain = _logits(*parts)
    for part in parts:
        kernels.optimize(part, CPU, "fp64")
    # No kernel knows the prefixes, which are in every block.
    assert bool(_kernels(*parts)) == (name != "prefix_tuning")
    torch.testing.assert_close(_logits(*parts), plain, atol=1e-12, rtol=1e-12)
    assert [list(part.state_dict()) for part in parts] == [names for _, names in before], "checkpoints fit either"
    for part in parts:
        kernels.restore(part)
    assert [_types(part) for part in parts] == [types for types, _ in before]
    assert torch.equal(_logits(*parts), plain)


@pytest.mark.parametrize("name", ["last_block", "lora"])
def test_what_is_trained_with_kernels_stays_when_they_go(name: str) -> None:
    _, suffix = parts = _parts(strategies.load(name).strategy)
    for part in parts:
        kernels.optimize(part, CPU, "fp64")
    with torch.no_grad():
        for parameter in suffix.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
    trained = _logits(*parts)
    for part in parts:
        kernels.restore(part)
    torch.testing.assert_close(_logits(*parts), trained, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("name", "attention"), [("last_block", KeylessAttention), ("lora", OneQueryAttention)])
def test_one_query_goes_without_keys_only_where_they_are_plain_matrices(name: str, attention: type) -> None:
    _, suffix = _parts(strategies.load(name).strategy)
    kernels.optimize(suffix, CPU, "fp64")
    (block,) = [stage for stage in suffix.stages if isinstance(stage, OneQueryBlock)]
    assert type(block.attention) is attention
    assert suffix.readout is None


def test_a_block_that_a_strategy_has_changed_is_left_alone() -> None:
    def build(backbone: nn.Module) -> None:
        top = backbone.blocks[-1].requires_grad_(True)
        forward = top.forward
        top.forward = lambda hidden, batch: 2 * forward(hidden, batch)

    _, suffix = _parts(Strategy(build=build))
    kernels.optimize(suffix, CPU, "fp64")
    assert not any(isinstance(stage, ReadingBlock) for stage in suffix.stages)
    assert suffix.readout is not None


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("lengths", [[3, 40, 1, 9], [7, 7]])
def test_attention_row_by_row(causal: bool, window: int | None, lengths: list[int]) -> None:
    """Values and gradients, for rows that differ in length and for a full rectangle; two heads of the query share one
    of keys and values."""
    batch, plain = PackedBatch.packed(np.array(lengths)), DotProductAttention(causal)
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), 8), (sum(lengths), 4), (sum(lengths), 4)]
    inputs = [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    found = []
    for attention in (plain, CPUAttention.of(plain)):
        mixed = batch.unpack(attention(*map(batch.pack, inputs), 4, batch, window))
        found.append([mixed, *torch.autograd.grad(mixed.square().sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_attention_trains_in_float32_where_bfloat16_is_computed_in() -> None:
    batch, plain = PackedBatch.packed(np.array([7, 7])), DotProductAttention()
    inputs = [torch.randn(14, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    assert CPUAttention.of(plain)(*map(batch.pack, inputs), 2, batch).dtype == torch.float32
    with torch.no_grad():
        assert CPUAttention.of(plain)(*map(batch.pack, inputs), 2, batch).dtype == torch.bfloat16


@needs_onednn
@pytest.mark.parametrize("name", ["head_only", "first_token", "mean_pool", "last_block"])
def test_packed_matrices_multiply_as_the_layers_do(name: str) -> None:
    """But that what GELU is taken of is not rounded first."""
    prefix, _ = _parts(strategies.load(name).strategy, "bf16")

    def features() -> Tensor:
        found = prefix.features(IDS, BATCH)
        return found if prefix.facts.reads else BATCH.unpack(found)  # without the slots that hold no token

    plain = features()
    kernels.optimize(prefix, CPU, "bf16")
    layers = [module for module in prefix.modules() if isinstance(module, PackedLinear)]
    assert len(layers) >= 4 * sum("block" in stage for stage in prefix.names)
    torch.testing.assert_close(features(), plain, atol=3e-2, rtol=0)
    for layer in layers:  # they are what counts: others give other features
        layer._packed = torch.ops.mkldnn._reorder_linear_weight(-layer.weight, 512)
    assert not torch.allclose(features(), plain, atol=1e-1)


@needs_onednn
def test_gelu_is_part_of_the_product_only_in_a_frozen_mlp() -> None:
    from harness.model.named.shapes import SHAPES

    frozen = nn.ModuleList([MLP(SHAPES["mini"])]).bfloat16().requires_grad_(False)
    hidden = torch.randn(5, SHAPES["mini"].hidden, dtype=torch.bfloat16)
    expected = frozen[0](hidden)
    replace_below(frozen, packed)
    assert type(frozen[0]) is PackedMLP
    torch.testing.assert_close(frozen[0](hidden), expected, atol=3e-2, rtol=3e-2)
    restore_below(frozen)
    assert type(frozen[0]) is MLP
    assert type(frozen[0].expand) is nn.Linear
    trained = nn.ModuleList([MLP(SHAPES["mini"])])
    replace_below(trained, packed)
    assert not _kernels(trained)


@pytest.mark.parametrize("replacement", [packed, few_rows])
def test_a_layer_that_does_more_than_multiply_is_left_alone(replacement: Callable) -> None:
    class Doubled(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return 2 * super().forward(hidden)

    def changed(change: Callable[[nn.Linear], object]) -> nn.Linear:
        layer = nn.Linear(8, 8)
        change(layer)
        return layer

    others = [
        Doubled(8, 8),
        LoRALinear(nn.Linear(8, 8), strategies.load("lora").strategy.adapt[0]),
        changed(lambda layer: layer.register_forward_hook(lambda *call: call[-1] + 1)),
        changed(lambda layer: layer.register_forward_pre_hook(lambda *call: (call[-1][0] + 1,))),
        changed(lambda layer: setattr(layer, "forward", torch.zeros_like)),
    ]
    if replacement is packed:
        others = [layer.bfloat16().requires_grad_(False) for layer in others]
    layers = nn.ModuleList(others)
    replace_below(layers, replacement)
    assert [type(layer) for layer in layers] == [type(layer) for layer in others]
    assert not _kernels(layers)


@needs_onednn
def test_few_rows_go_through_a_trained_matrix_in_float32() -> None:
    """Forwards and backwards, where more rows are rounded to bfloat16."""
    torch.manual_seed(0)
    plain = nn.Linear(64, 32)
    layer = few_rows(plain)
    assert isinstance(layer, FewRowsLinear)
    for rows, tolerance in ((1, 1e-5), (FEW_ROWS, 1e-5), (FEW_ROWS + 1, 0.1)):
        hidden, gradient = torch.randn(rows, 64, requires_grad=True), torch.randn(rows, 32)
        inputs = (hidden, layer.weight, layer.bias)
        exact = (plain(hidden), *torch.autograd.grad(plain(hidden), inputs, gradient))
        with torch.autocast("cpu", torch.bfloat16):
            product = layer(hidden)
        found = (product, *torch.autograd.grad(product, inputs, gradient.to(product.dtype)))
        errors = [(one.double() - other.double()).abs().max().item() for one, other in zip(found, exact, strict=True)]
        assert max(errors) < tolerance
        assert (min(errors) > 1e-3) == (rows > FEW_ROWS)


def test_few_rows_leave_a_matrix_with_hooks_to_them() -> None:
    """DeepSpeed's ZeRO 3 brings a matrix in a hook and takes it away again."""
    layer = few_rows(nn.Linear(8, 8))
    layer.register_forward_hook(lambda *call: call[-1] + 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 8)).dtype == torch.bfloat16


def test_without_these_products_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    for part in _parts(strategies.load("last_block").strategy, "bf16"):
        kernels.optimize(part, CPU, "bf16")
        assert not [module for module in part.modules() if isinstance(module, PackedLinear | FewRowsLinear)]


def test_float32_is_not_packed_and_a_released_prefix_holds_nothing() -> None:
    from harness.features.loader import PrefixLoader

    prefix, _ = _parts(strategies.load("last_block").strategy, "fp32")
    kernels.optimize(prefix, CPU, "fp32")
    assert not [module for module in prefix.modules() if isinstance(module, PackedLinear)]
    loader = PrefixLoader(_parts(strategies.load("last_block").strategy, "bf16")[0], None, CPU, "bf16")
    loader.load()
    loader.release()
    assert not _kernels(loader.prefix)
    assert all(parameter.is_meta for parameter in loader.prefix.parameters())
