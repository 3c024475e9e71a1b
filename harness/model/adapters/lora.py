"""Low-rank adapters: LoRA, and DoRA, which trains the size of each output beside the low-rank direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.config.strategy import Adapter
from harness.model.adapters.adapted import AdaptedLinear


class LoRALinear(AdaptedLinear):
    """A Linear with a low-rank update: `x W' + b + scale * (x A) B` (Hu et al., arXiv:2106.09685, section 4.1).

    B starts at zero, so that the adapted layer first computes what the layer did.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter) -> None:
        super().__init__(layer)
        self.scale = adapter.factor
        self.down = nn.Parameter(torch.empty(adapter.rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, adapter.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return self._updated(super().forward(input), input)

    def _updated(self, outputs: Tensor, input: Tensor) -> Tensor:
        low_rank = nn.functional.linear(input, self.down)
        # One product that adds what it makes: no pass over all outputs to scale it, and none to add it.
        added = torch.addmm(outputs.flatten(0, -2), low_rank.flatten(0, -2), self.up.t(), alpha=self.scale)
        return added.view_as(outputs)

    def merged(self) -> tuple[Tensor, Tensor | None]:
        return self.weight + self.scale * self.up @ self.down, self.bias


class DoRALinear(LoRALinear):
    """A Linear whose matrix is `m * V / |V|` with V = W + scale * B A, a norm and a trained size m for each output (Liu
    et al., arXiv:2402.09353, equation 5). The norms get no gradient (section 4.3). m starts at the norms of W.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter) -> None:
        super().__init__(layer, adapter)
        self.size = nn.Parameter(torch.ones(layer.out_features))
        if not layer.weight.is_meta:
            self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        self.size.copy_(self.weight.norm(dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        outputs = self._updated(nn.functional.linear(input, self.weight), input)
        outputs = outputs * self._factors().to(outputs.dtype)
        return outputs if self.bias is None else outputs + self.bias

    def _factors(self) -> Tensor:
        """What each output of V is multiplied by, [outputs]."""
        weight = self.weight.detach().to(self.up.dtype)
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            norms = torch.addmm(weight, self.up, self.down, alpha=self.scale).norm(dim=1)
        return self.size / norms

    def merged(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = super().merged()
        return weight * self._factors()[:, None], bias
