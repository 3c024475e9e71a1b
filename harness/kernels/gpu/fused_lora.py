"""LoRA on a GPU in half the kernels: layers that are applied to the same hidden states share their products, and an
update is scaled and added in the product that makes it, in the backward pass too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.kernels.gpu.together import are_hooked, cast_together, copy_together, product_type
from harness.kernels.replacing import Kernel, is_as_built
from harness.model.adapters.lora import LoRALinear
from harness.model.gpt2 import SelfAttention
from harness.model.packing import PackedBatch


class FusedLoRALinear(Kernel, LoRALinear):
    """With its own matrix frozen."""

    replaces = LoRALinear

    def forward(self, input: Tensor) -> Tensor:
        if are_hooked([self]):
            return super().forward(input)
        return adapted(input.flatten(0, -2), [self]).view(*input.shape[:-1], self.out_features)


class FusedLoRAAttention(Kernel, SelfAttention):
    """With query, key and value adapted, and their own matrices frozen."""

    replaces = SelfAttention
    query: LoRALinear
    key: LoRALinear
    value: LoRALinear

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        layers = [self.query, self.key, self.value]
        if are_hooked(layers):
            return super().forward(hidden, batch)
        query, key, value = adapted(hidden, layers).chunk(3, dim=-1)
        return self.output(self.attend(query, key, value, self.heads, batch))


def fused_lora(module: nn.Module) -> nn.Module | None:
    """What takes the place of a module; None where nothing does. Children come first."""
    if is_as_built(module, LoRALinear) and module.bias is not None and not module.weight.requires_grad:
        return FusedLoRALinear.of(module)
    if is_as_built(module, SelfAttention):
        layers = (module.query, module.key, module.value)
        if all(isinstance(layer, FusedLoRALinear) for layer in layers) and len({layer.scale for layer in layers}) == 1:
            return FusedLoRAAttention.of(module)
    return None


def adapted(inputs: Tensor, layers: Sequence[LoRALinear]) -> Tensor:
    """[tokens, inputs] -> the outputs of all layers, side by side. The layers have the same shapes and scale."""
    weight, bias = layers[0].weight, layers[0].bias
    if len(layers) > 1:
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    dtype = product_type(weight)
    downs, ups = [layer.down for layer in layers], [layer.up for layer in layers]
    with torch.autocast(weight.device.type, enabled=False):
        return _Adapted.apply(inputs.to(dtype), weight.to(dtype), bias.to(dtype), layers[0].scale, *downs, *ups)


class _Adapted(torch.autograd.Function):
    """x W' + b + alpha (x A') B' of several layers side by side; W and b get no gradient."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor, alpha: float, *adapters: Tensor) -> Tensor:
        """inputs: [tokens, inputs]; weight: [layers * outputs, inputs]; adapters: A of each layer, then B of each."""
        count = len(adapters) // 2
        down = inputs.new_empty(count * len(adapters[0]), inputs.shape[1])
        ups = [torch.empty_like(up, dtype=inputs.dtype) for up in adapters[count:]]
        copy_together([*down.chunk(count), *ups], adapters)
        low = inputs @ down.t()
        outputs = torch.addmm(bias, inputs, weight.t())
        for part, of_layer, up in zip(outputs.chunk(count, 1), low.chunk(count, 1), ups, strict=True):
            part.addmm_(of_layer, up.t(), alpha=alpha)
        context.save_for_backward(inputs, weight, down, low, *ups)
        context.alpha, context.dtypes = alpha, [adapter.dtype for adapter in adapters]
        return outputs

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] (its arguments are the outputs' gradients)
        inputs, weight, down, low, *ups = context.saved_tensors
        count, scale = len(ups), {"beta": 0, "alpha": context.alpha}
        parts, of_low = gradient.chunk(count, 1), torch.empty_like(low)
        for part, of_layer, up in zip(parts, of_low.chunk(count, 1), ups, strict=True):
            torch.addmm(of_layer, part, up, **scale, out=of_layer)
        of_ups = [
            torch.addmm(up, part.t(), layer, **scale)
            for up, part, layer in zip(ups, parts, low.chunk(count, 1), strict=True)
        ]
        found = [*(of_low.t() @ inputs).chunk(count), *of_ups]
        of_inputs = torch.addmm(gradient @ weight, of_low, down) if context.needs_input_grad[0] else None
        return of_inputs, None, None, None, *cast_together(found, context.dtypes)
