"""AdamW's state by the names of parameters, as checkpoints keep it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained_parameters(suffix: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}


def optimizer_state(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments of each parameter and the number of steps; a parameter that never had a gradient has none."""
    states = {name: optimizer.state[parameter] for name, parameter in named.items() if parameter in optimizer.state}
    moments = {f"{key}/{name}": state[key].cpu() for name, state in states.items() for key in MOMENTS}
    steps = max((float(state["step"]) for state in states.values()), default=0.0)
    return moments | {"optimizer_steps": torch.tensor(steps)}


def load_optimizer_state(
    named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, state: dict[str, Tensor]
) -> None:
    for name, parameter in named.items():
        if f"exp_avg/{name}" in state:
            moments = {key: torch.empty_like(parameter).copy_(state[f"{key}/{name}"]) for key in MOMENTS}
            step = torch.full((), float(state["optimizer_steps"]), dtype=torch.float32, device=parameter.device)
            optimizer.state[parameter] = {"step": step, **moments}
