"""AdamW over the trained parameters of a suffix, and both by name, as checkpoints keep them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.config.schema import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained_parameters(suffix: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}


def adamw(named: dict[str, nn.Parameter], config: OptimizerConfig, fused: bool) -> torch.optim.AdamW:
    assert config.learning_rate is not None, "a plan resolves it"
    return torch.optim.AdamW(
        _groups(list(named.values()), config),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=fused or None,
        capturable=fused and all(parameter.is_cuda for parameter in named.values()),
    )


def _groups(parameters: list[nn.Parameter], config: OptimizerConfig) -> list[dict[str, Any]]:
    """One, or two where vectors are not decayed; none is empty."""
    if config.decay_norms_and_biases:
        return [{"params": parameters}]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices}, *([{"params": vectors, "weight_decay": 0.0}] if vectors else [])]


def hold_rate_in_tensor(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """For steps that are captured: they would repeat a number, and read a tensor each time."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def whole_state(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What `Engine.save` gives, where each rank holds all; a parameter that never had a gradient has no moments."""
    states = {name: optimizer.state[parameter] for name, parameter in named.items() if parameter in optimizer.state}
    moments = {f"{key}/{name}": state[key].cpu() for name, state in states.items() for key in MOMENTS}
    steps = max((float(state["step"]) for state in states.values()), default=0.0)
    values = {f"value/{name}": parameter.detach().cpu() for name, parameter in named.items()}
    return moments | values | {"optimizer_steps": torch.tensor(steps)}


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
