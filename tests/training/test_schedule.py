"""The recipe of the optimizer: learning rates by step, which parameters decay, and what AdamW is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import get_scheduler

from harness import Strategy
from harness.config.schema import OptimizerConfig
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import Suffix, split
from harness.training.engines.optimizer import adamw, hold_rate_in_tensor, set_learning_rate, trained_parameters
from harness.training.schedule import learning_rate, untrained_factor, warmup_steps
from tests.support.runs import losses_of

SCHEDULES = ("constant", "linear", "cosine")
NAMED = {"matrix": nn.Parameter(torch.ones(2, 2)), "bias": nn.Parameter(torch.ones(2))}


@given(st.sampled_from(SCHEDULES), st.floats(0, 0.9), st.integers(2, 60))
def test_rates_are_those_of_transformers(schedule: str, warmup: float, steps: int) -> None:
    config = OptimizerConfig(learning_rate=1e-3, schedule=schedule, warmup=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    theirs = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    scheduler = get_scheduler(theirs, optimizer, warmup_steps(config, steps), steps)
    for step in range(steps):
        assert learning_rate(config, step, steps) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-15)
        optimizer.step()
        scheduler.step()


def test_the_default_is_the_same_number_in_every_step() -> None:
    config = OptimizerConfig(learning_rate=5e-5)
    assert {learning_rate(config, step, 7) for step in range(7)} == {5e-5}


@pytest.mark.parametrize("of_tensor", [False, True])
def test_each_step_of_adamw_has_its_rate(of_tensor: bool) -> None:
    """A parameter with a gradient of zero only shrinks, by the product over the steps. A tensor as on a GPU, where a
    captured step reads it: it must stay the same one."""
    config = OptimizerConfig(learning_rate=0.1, schedule="cosine", warmup=0.25, weight_decay=0.5)
    parameter = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = adamw({"only": parameter}, config, fused=False)
    if of_tensor:
        hold_rate_in_tensor(optimizer, torch.device("cpu"))
    first = optimizer.param_groups[0]["lr"]
    for step in range(10):
        parameter.grad = torch.zeros_like(parameter)
        set_learning_rate(optimizer, learning_rate(config, step, 12))
        optimizer.step()
    assert parameter.detach().tolist() == pytest.approx(
        [untrained_factor(config, 10, 12)] * 3, rel=1e-7 if of_tensor else 1e-12
    )
    assert untrained_factor(config, 10, 12) < 0.9
    assert (optimizer.param_groups[0]["lr"] is first) == of_tensor


def test_norms_and_biases_decay_unless_they_are_left_out() -> None:
    config = OptimizerConfig(learning_rate=1e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    (group,) = adamw(NAMED, config, fused=False).param_groups
    assert group["params"] == list(NAMED.values())
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-6, 0.1)
    without = config.model_copy(update={"decay_norms_and_biases": False})
    matrices, vectors = adamw(NAMED, without, fused=False).param_groups
    assert [matrices["params"], vectors["params"]] == [[NAMED["matrix"]], [NAMED["bias"]]]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert vectors["betas"] == (0.8, 0.95)
    assert len(adamw({"matrix": NAMED["matrix"]}, without, fused=False).param_groups) == 1, "none is empty"


def test_a_run_follows_its_schedule(run_here: Callable, tmp_path: Path) -> None:
    """A first step at rate 0 changes nothing, so that a run of the same batches has its first two losses alike."""
    common = {"strategy": ["head_only"], "precision": "fp64", "data__size": 100, "training__epochs": 1}
    common |= {"optimizer__learning_rate": 1e-2}
    constant, warmed, cosine = (
        losses_of(tmp_path / "results", *run_here(**common, **recipe))
        for recipe in ({}, {"optimizer__warmup": 0.2}, {"optimizer__schedule": "cosine"})
    )
    assert constant[0] == warmed[0] == cosine[0]
    assert constant[1] == cosine[1], "which begins at the full rate"
    assert warmed[1] != constant[1]
    assert cosine[2] != constant[2]


def _layer_decay(decay: float) -> Suffix:
    torch.manual_seed(0)
    strategy = Strategy(trainable=("all",), readout="attention", rate_decay=decay)
    return split(filled_backbone("mini", RandomWeights("gpt2", 0)), strategy, classes=2)[1].double()


def test_rates_fall_with_the_distance_from_the_head() -> None:
    suffix = _layer_decay(0.5)
    factors = {name.rpartition(".")[0]: suffix.rate_factor(name) for name, _ in suffix.named_parameters()}
    above = [factors[f"stages.{number}.attention.query"] for number in range(1, 5)]
    assert [factors["stages.0.token"], *above] == [0.5**6, 0.5**5, 0.5**4, 0.5**3, 0.5**2]
    assert (factors["stages.5"], factors["readout"], factors["head"]) == (0.5, 1, 1)


@pytest.mark.parametrize("decay", [0, -0.5, 1.5, float("nan"), True, "0.8"])
def test_a_rate_does_not_grow_with_the_distance(decay: object) -> None:
    with pytest.raises(ValueError, match=r"rate_decay=.*: expected a number above 0, at most 1"):
        Strategy(rate_decay=decay)


@pytest.mark.parametrize("decays_vectors", [False, True])
@pytest.mark.parametrize("of_tensor", [False, True])
def test_every_parameter_has_the_rate_of_its_stage(of_tensor: bool, decays_vectors: bool) -> None:
    """Beside AdamW as its paper writes it (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2), one parameter after
    the other. Rates in tensors, as on a GPU, have the precision of float32."""
    config = OptimizerConfig(
        learning_rate=1e-2, schedule="linear", warmup=0.2, weight_decay=0.3, decay_norms_and_biases=decays_vectors
    )
    suffix, steps = _layer_decay(0.8), 5
    named = trained_parameters(suffix)
    expected = {name: parameter.detach().clone() for name, parameter in named.items()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in expected.items()}
    optimizer = adamw(named, config, fused=False, rate_factor=suffix.rate_factor)
    if of_tensor:
        hold_rate_in_tensor(optimizer, torch.device("cpu"))
    for step in range(steps):
        common = learning_rate(config, step, steps)
        set_learning_rate(optimizer, common)
        for name, parameter in named.items():
            parameter.grad = torch.randn_like(parameter)
            first, second = moments[name]
            first.lerp_(parameter.grad, 1 - 0.9)
            second.lerp_(parameter.grad**2, 1 - 0.999)
            rate = common * suffix.rate_factor(name)
            expected[name] *= 1 - rate * (0.3 if decays_vectors or parameter.ndim > 1 else 0)
            unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            expected[name] -= rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        optimizer.step()
    found = {name: parameter.detach() for name, parameter in named.items()}
    tolerance = 1e-7 if of_tensor else 1e-12
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
