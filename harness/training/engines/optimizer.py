"""AdamW over the trained parameters of a suffix, and both by name, as checkpoints keep them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.config.schema import OptimizerConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained_parameters(suffix: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}


def adamw(named: dict[str, nn.Parameter], config: OptimizerConfig, fused: bool) -> torch.optim.AdamW:
    assert config.learning_rate is not None, "a plan resolves it"
    return torch.optim.AdamW(
        list(named.values()),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=fused or None,
        capturable=fused and all(parameter.is_cuda for parameter in named.values()),
    )


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
