"""How a kernel takes the place of a module: it takes over its parameters, children and attributes under their names.

So checkpoints and classifiers are the same with and without kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self, TypeGuard, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Kernel(nn.Module):
    """A module that computes the same as one of `replaces`, faster."""

    replaces: ClassVar[type[nn.Module]]

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """In the place of `module`, with its parameters."""
        return take_over(cls, module)

    def plain(self) -> nn.Module:
        """The module that this one replaces, with its present parameters."""
        return take_over(self.replaces, self)


def take_over(cls: type[M], module: nn.Module) -> M:
    """A `cls` with what `module` has, without running its constructor. Private attributes stay behind."""
    taken = cls.__new__(cls)
    nn.Module.__init__(taken)
    for name, parameter in module._parameters.items():
        taken.register_parameter(name, parameter)
    for name, child in module._modules.items():
        taken.add_module(name, child)
    for name, value in vars(module).items():
        if not name.startswith("_"):
            setattr(taken, name, value)
    return taken


def replace_below(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace every module below `module` for which `replacement` gives another, children first."""
    for name, child in list(module.named_children()):
        replace_below(child, replacement)
        if (new := replacement(child)) is not None:
            setattr(module, name, new)


def restore_below(module: nn.Module) -> None:
    """Put the plain modules back."""
    replace_below(module, lambda part: part.plain() if isinstance(part, Kernel) else None)


def is_as_built(module: nn.Module, built: type[M]) -> TypeGuard[M]:
    """Whether a module does what the class `built` says and nothing else: a subclass, a hook, a buffer or its own
    `forward`, which a strategy's code may have put there, may do more."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return type(module) is built and not (hooks or module._buffers or "forward" in vars(module))


def only_multiplies(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a plain Linear, with a bias, on the CPU."""
    return is_as_built(layer, nn.Linear) and layer.bias is not None and layer.weight.device.type == "cpu"
