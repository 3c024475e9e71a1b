"""Packed copies of frozen matrices: the same products, for layers of which that is known, and gone with the prefix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strategies
from harness.kernels import cpu_products
from harness.kernels.cpu_products import FEW_ROWS, linear, linear_gelu, pack, unpack
from harness.model.attention import Key, Value
from harness.model.lora import LoRALinear
from harness.model.packing import Rows
from harness.model.split import Prefix, split
from harness.model.weights import RandomWeights, filled_backbone

CPU = torch.device("cpu")
ROWS = Rows.packed(np.array([3, 9, 1]))
IDS = ROWS.pack(torch.arange(13))
pytestmark = pytest.mark.skipif(not cpu_products.can_pack(), reason="this processor does not have these kernels")


def _placed(name: str, precision: str = "bf16") -> Prefix:
    prefix, _ = split(filled_backbone("mini", RandomWeights("gpt2", 0)), strategies.load(name).strategy, classes=2)
    prefix.place(CPU, precision)
    return prefix


def _packed(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if hasattr(layer, "packed")]


@pytest.mark.parametrize("name", ["head_only", "first_token", "mean_pool", "last_block"])
def test_packed_matrices_multiply_as_the_layers_do(name: str) -> None:
    prefix = _placed(name)
    blocks = sum("block" in stage for stage in prefix.names)
    assert len(_packed(prefix)) == 6 * blocks > 0, "query, key, value, output and two of the MLP"
    packed = prefix.features(IDS, ROWS)
    for layer in _packed(prefix):  # they are what counts: others give other features
        layer.packed = torch.ops.mkldnn._reorder_linear_weight(-layer.weight, 512)
    assert not torch.allclose(prefix.features(IDS, ROWS), packed, atol=1e-2)
    unpack(prefix)
    torch.testing.assert_close(packed, prefix.features(IDS, ROWS), atol=1e-3, rtol=0)


def test_a_layer_that_does_more_than_multiply_is_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return 2 * super().forward(hidden)

    layers = nn.ModuleList([kind(8, 8) for kind in (Doubled, nn.Linear, Key, Value)]).bfloat16()
    layers.append(LoRALinear(nn.Linear(8, 8).bfloat16(), strategies.load("lora").strategy.adapt[0]))
    pack(layers)
    assert _packed(layers) == list(layers[1:4])


@pytest.mark.parametrize(("product", "dtype"), [(linear_gelu, torch.bfloat16), (linear, torch.float32)])
def test_what_else_is_done_in_a_layers_name_is_done_without_gradient_too(product: Callable, dtype: torch.dtype) -> None:
    def changes(change: Callable[[nn.Linear], object]) -> bool:
        layer, hidden = nn.Linear(8, 8).to(dtype).requires_grad_(False), torch.ones(2, 8).to(dtype)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            before = product(layer, hidden).float()
            change(layer)
            pack(layer)
            return not torch.equal(product(layer, hidden).float(), before)

    assert not changes(lambda layer: None)
    assert changes(lambda layer: layer.register_forward_hook(lambda *call: call[-1] + 1))
    assert changes(lambda layer: layer.register_forward_pre_hook(lambda *call: (call[-1][0] + 1,)))
    assert changes(lambda layer: setattr(layer, "forward", torch.zeros_like))


def test_few_rows_go_through_a_trained_matrix_in_float32() -> None:
    """Forwards and backwards, where more rows are rounded to bfloat16."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    for rows, tolerance in ((1, 1e-5), (FEW_ROWS, 1e-5), (FEW_ROWS + 1, 0.1)):
        hidden, gradient = torch.randn(rows, 64, requires_grad=True), torch.randn(rows, 32)
        inputs = (hidden, layer.weight, layer.bias)
        exact = (layer(hidden), *torch.autograd.grad(layer(hidden), inputs, gradient))
        with torch.autocast("cpu", torch.bfloat16):
            product = linear(layer, hidden)
        found = (product, *torch.autograd.grad(product, inputs, gradient.to(product.dtype)))
        errors = [(one.double() - other.double()).abs().max().item() for one, other in zip(found, exact, strict=True)]
        assert max(errors) < tolerance
        assert (min(errors) > 1e-3) == (rows > FEW_ROWS)


def test_a_processor_without_these_kernels_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """But that what GELU is taken of is rounded first."""
    packed = _placed("head_only").features(IDS, ROWS)
    monkeypatch.setattr(cpu_products, "can_pack", lambda: False)
    prefix = _placed("head_only")
    assert not _packed(prefix)
    torch.testing.assert_close(packed, prefix.features(IDS, ROWS), atol=3e-2, rtol=0)


def test_float32_is_not_packed_and_released_prefixes_hold_nothing() -> None:
    assert not _packed(_placed("last_block", "fp32"))
    prefix = _placed("last_block")
    prefix.release()
    assert not _packed(prefix)
    assert all(parameter.is_meta for parameter in prefix.parameters())
