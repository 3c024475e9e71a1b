"""What every adapted module is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn


class Adapted(nn.Module):
    """A module with trained parameters beside those of the one that it takes the place of, if that has any, which it
    takes over with their `requires_grad`.

    What is added is float32 on the default device, wherever the module's own parameters are.
    """

    def added(self) -> list[nn.Parameter]:
        """The parameters that the module did not have."""
        return [value for name, value in self.named_parameters() if name not in ("weight", "bias")]

    def begin(self) -> None:
        """Set what is added and follows from the module's own parameters, which are there."""


class AdaptedLinear(Adapted, nn.Linear, ABC):
    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    @abstractmethod
    def merged(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a plain Linear that computes the same."""


def replace_layers(module: nn.Module, replacement: Callable[[nn.Linear], nn.Linear | None]) -> None:
    """Replace every Linear below `module`, in order of definition, for which `replacement` gives another."""
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            replace_layers(child, replacement)
        elif new := replacement(child):
            setattr(module, name, new)
