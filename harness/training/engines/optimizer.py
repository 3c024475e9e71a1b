"""AdamW over the trained parameters of a suffix, and both by name, as checkpoints keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.schema import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained_parameters(suffix: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}


def adamw(
    named: dict[str, nn.Parameter],
    config: OptimizerConfig,
    fused: bool,
    rate_factor: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """rate_factor: what the learning rate of a parameter, by name, is multiplied by."""
    assert config.learning_rate is not None, "a plan resolves it"
    return torch.optim.AdamW(
        _groups(named, config, config.learning_rate, rate_factor),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused or None,
        capturable=fused and all(parameter.is_cuda for parameter in named.values()),
    )


def _groups(
    named: dict[str, nn.Parameter], config: OptimizerConfig, rate: float, rate_factor: Callable[[str], float]
) -> list[dict[str, Any]]:
    """One for each factor of the rate, or two where vectors are not decayed; none is empty."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        is_decayed = config.decay_norms_and_biases or parameter.ndim > 1
        groups.setdefault((rate_factor(name), config.weight_decay if is_decayed else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate * factor, "rate_factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def hold_rate_in_tensor(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """For steps that are captured: they would repeat a number, and read a tensor each time."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of each group this rate times its factor."""
    for group in optimizer.param_groups:
        of_group = rate * group["rate_factor"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(of_group)
        else:
            group["lr"] = of_group


def state_by_name(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What `Engine.save` gives, as this rank holds it; a parameter that never had a gradient has no moments."""
    states = {name: optimizer.state[parameter] for name, parameter in named.items() if parameter in optimizer.state}
    moments = {f"{key}/{name}": state[key] for name, state in states.items() for key in MOMENTS}
    steps = max((float(state["step"]) for state in states.values()), default=0.0)
    values = {f"value/{name}": parameter.detach() for name, parameter in named.items()}
    return moments | values | {"optimizer_steps": torch.tensor(steps)}


def whole_state(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What `Engine.save` gives, where each rank holds all."""
    return {key: tensor.cpu() for key, tensor in state_by_name(named, optimizer).items()}


def copied(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """What `Engine.values` gives, where each rank holds all."""
    return {name: parameter.detach().cpu().clone() for name, parameter in named.items()}


def load_whole_state(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: dict[str, Tensor]
) -> None:
    for name, parameter in named.items():
        parameter.data.copy_(state[f"value/{name}"])
        if f"exp_avg/{name}" in state:
            moments = {key: torch.empty_like(parameter).copy_(state[f"{key}/{name}"]) for key in MOMENTS}
            step = torch.full((), float(state["optimizer_steps"]), dtype=torch.float32, device=parameter.device)
            optimizer.state[parameter] = {"step": step, **moments}
