"""What strategies declare is what is trained; a third party's plug in by path and by entry point."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import strategies
from harness import Adapter, Input, Strategy
from harness.config.schema import RunConfig
from harness.errors import UserError
from harness.model.adapters import adapt
from harness.model.adapters.adapted import AdaptedLinear
from harness.model.adapters.lora import LoRALinear
from harness.model.gpt2 import GPT2
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from harness.model.split import parameter_counts, split
from harness.planning.strategy import ResolvedStrategy, resolve_strategy, trainable_parameters
from harness.report.catalogue import COUNTS
from tests.support.runs import ROOT
from tools import trained_parameters

# Trained parameters of the 124M model with two classes, and the first stage above the cut. Embeddings alone are no
# prefix worth keeping.
EXPECTED = {
    "head_only": (1_538, "head"),
    "last_block": (7_090_946, "block.11"),
    "last_two_blocks": (14_178_818, "block.10"),
    "full": (124_441_346, "embeddings"),
    "lora": (2_668_066, "embeddings"),
    "first_token": (7_090_946, "block.11"),
    "mean_pool": (7_090_946, "block.11"),
    "last_padded": (7_090_946, "block.11"),
    "no_causal_mask": (7_090_946, "block.11"),
    "bias_only": (103_682, "embeddings"),
    "norms_only": (39_938, "embeddings"),
    "lora_qv": (296_450, "embeddings"),
    "dora": (2_434_562, "embeddings"),
    "ia3": (56_834, "embeddings"),
    "layer_decay": (124_441_346, "embeddings"),
    "prefix_tuning": (370_178, "embeddings"),
    "prompt_tuning": (16_898, "embeddings"),
    "probe": (1_538, "head"),
    "probe_then_full": (124_441_346, "embeddings"),
}
LARGER = [name for name in SHAPES if name not in ("mini", "gpt2")]
ADAPTED = [name for name in EXPECTED if strategies.load(name).strategy.adapt]
# Others change what is computed from the start.
START_AS_THE_MODEL = [name for name in ADAPTED if name not in ("prefix_tuning", "prompt_tuning")]


def meta(model: str) -> GPT2:
    with torch.device("meta"):
        return GPT2(SHAPES[model])


def test_every_built_in_strategy_is_expected_here() -> None:
    assert set(strategies.built_in_names()) == set(EXPECTED)
    assert all(strategies.load(name).description.endswith(".") for name in EXPECTED)


@pytest.mark.parametrize("size", ["mini", "gpt2", *(pytest.param(name, marks=pytest.mark.long) for name in LARGER)])
def test_what_is_listed_is_what_is_counted(size: str, run_cli: Callable) -> None:
    """With another number of classes than `tools.trained_parameters` counts with."""
    code, out, _ = run_cli("list", "--model", size, "--classes", "7", results=None)
    listed = dict(re.findall(r"^ +(\w+) +([\d,]+) ", out, re.MULTILINE))
    counted = {}
    for name in EXPECTED:
        entry = strategies.load(name)
        assert size in json.loads(COUNTS.read_text())[entry.sha256], trained_parameters.__doc__
        declared = entry.strategy.resolved_for("causal")
        counted[name] = f"{trainable_parameters(declared, GPT2Model(size), 7):,}"
    assert (code, listed) == (0, counted)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_trained_and_where_the_cut_lies(name: str) -> None:
    declared = strategies.load(name).strategy
    expected, boundary = EXPECTED[name]
    assert trainable_parameters(declared, GPT2Model("gpt2"), 2) == expected
    with torch.device("meta"):
        prefix, suffix = split(meta("gpt2"), declared, 2)
    head = 768 * 2 + 2
    adapters = expected - head if strategies.load(name).strategy.adapt else 0
    assert parameter_counts(prefix, suffix) == (124_439_808 + head + adapters, expected)
    assert prefix.facts.boundary == boundary
    assert not any(parameter.requires_grad for parameter in prefix.parameters()), "a prefix never changes"
    assert all(parameter.requires_grad for parameter in suffix.head.parameters())


@pytest.mark.parametrize("model", SHAPES)
def test_every_strategy_fits_every_size(model: str) -> None:
    for name in EXPECTED:
        assert trainable_parameters(strategies.load(name).strategy, GPT2Model(model), 5) > 0


@pytest.mark.parametrize("name", EXPECTED)
def test_the_formula_of_a_strategy_gives_what_it_trains(name: str) -> None:
    described = (ROOT / "strategies" / f"{name}.py").read_text()
    (formula,) = re.findall(r"^Trained of GPT-2: (.*)$", described, re.MULTILINE)
    assert f"| `{name}` | `{formula}` |" in (ROOT / "docs" / "strategies.md").read_text()
    for model, classes in (("mini", 2), ("gpt2", 5), ("gpt2-medium", 3)):
        facts = {**vars(SHAPES[model]), "classes": classes, "head": (SHAPES[model].hidden + 1) * classes}
        trained = trainable_parameters(strategies.load(name).strategy, GPT2Model(model), classes)
        assert eval(formula, facts) == trained, model


def test_the_head_has_a_row_for_each_class() -> None:
    assert trainable_parameters(Strategy(), GPT2Model("gpt2"), 7) == 7 * 768 + 7


@pytest.mark.parametrize(
    ("trainable", "boundary"),
    [
        ((), "head"),
        (("final_norm",), "final_norm"),
        (("block.3",), "block.3"),
        (("block.-4",), "embeddings"),  # block.0 of four: nothing but the embeddings lies below
        (("block.2", "block.1"), "block.1"),
        (("embeddings",), "embeddings"),
        (("all",), "embeddings"),
    ],
)
def test_the_cut_follows_from_what_is_trained(trainable: tuple[str, ...], boundary: str) -> None:
    prefix, _ = split(GPT2(SHAPES["mini"]), Strategy(trainable=trainable), 2)
    assert prefix.facts.boundary == boundary


def test_the_second_name_of_a_block_is_the_same_block() -> None:
    trained = []
    for name in ("block.-1", "block.3"):
        _, suffix = split(GPT2(SHAPES["mini"]), Strategy(trainable=(name,)), 2)
        trained.append([name for name, parameter in suffix.named_parameters() if parameter.requires_grad])
    assert trained[0] == trained[1]


@pytest.mark.parametrize(
    "stage", ["block.12", "block.-13", "block.x", "block.", "blocks.1", "head", "norms", "", "bias.bias", "block.-1."]
)
def test_a_stage_that_does_not_exist_is_named(stage: str) -> None:
    with pytest.raises(UserError, match=r"'block\.N' with N from -12 to 11") as caught:
        trainable_parameters(Strategy(trainable=(stage,)), GPT2Model("gpt2"), 2)
    assert repr(stage) in str(caught.value)


# Adapters


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (4, 0.5), (16, 16.0)])
def test_an_adapted_layer_adds_alpha_times_the_low_rank_product(rank: int, alpha: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 7)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    adapted = LoRALinear(layer, Adapter(rank, alpha)).double()
    hidden = torch.randn(5, 12, dtype=torch.float64)
    assert torch.equal(adapted(hidden), nn.functional.linear(hidden, weight, bias)), "it starts as what it adapts"
    with torch.no_grad():
        adapted.up.normal_()
    a, b = adapted.down, adapted.up  # stored as Linear stores: [outputs, inputs]
    assert (tuple(a.shape), tuple(b.shape)) == ((rank, 12), (7, rank))
    expected = torch.stack([weight @ row + bias + alpha * (b @ (a @ row)) for row in hidden])
    torch.testing.assert_close(adapted(hidden), expected, rtol=1e-12, atol=1e-12)


def test_adapters_are_what_is_trained_and_every_linear_has_one() -> None:
    model = GPT2(SHAPES["mini"]).requires_grad_(False)
    linears = sum(isinstance(module, nn.Linear) for module in model.modules())
    classifier = nn.ModuleDict({"backbone": model, "head": nn.Linear(128, 2)})
    adapt(classifier, model.stages(), model.parts, Adapter(rank=2))
    adapted = [module for module in model.modules() if isinstance(module, LoRALinear)]
    assert len(adapted) == linears == 4 * 6
    trained = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"down", "up"}
    assert all(module.down.abs().sum() > 0 for module in adapted), "with both at zero nothing would ever be learned"


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_adapter_parameters_grow_with_the_rank(rank: int) -> None:
    head, of_rank_16 = 1_538, 2_668_066
    trained = trainable_parameters(Strategy(adapt=(Adapter(rank),)), GPT2Model("gpt2"), 2)
    assert trained - head == (of_rank_16 - head) // 16 * rank


def test_untrained_adapters_answer_as_the_untrained_model(run_here: Callable, tmp_path: Path) -> None:
    options = {"data__size": 50, "training__epochs": 0, "precision": "fp64"}
    plain, *others = run_here(strategy=["head_only", *START_AS_THE_MODEL], **options)
    expected = pd.read_csv(tmp_path / "results" / "runs" / plain.run_id / "predictions.csv")
    assert [record.strategy for record in others] == START_AS_THE_MODEL
    for record in others:
        found = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
        # DoRA's sizes follow from the weights while these are float32.
        close = 1e-6 if record.strategy == "dora" else 1e-12
        pd.testing.assert_frame_equal(found, expected, rtol=close, atol=close, obj=record.strategy)


@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_is_the_same_in_the_plan_that_workers_read(name: str) -> None:
    resolved = resolve_strategy(RunConfig(strategy=name), "causal")
    read = ResolvedStrategy.model_validate_json(resolved.model_dump_json())
    assert read.strategy() == strategies.load(name).strategy.resolved_for("causal")


def test_only_low_rank_adapters_have_a_rank(refused: Callable) -> None:
    assert "'ia3' has no low-rank adapter" in refused("--strategy", "ia3", "--set", "adapter.rank=4")
    assert "'full' has no low-rank adapter" in refused("--strategy", "full", "--set", "adapter.alpha=4")


def test_a_target_that_matches_nothing_is_named() -> None:
    with pytest.raises(UserError, match=r"names 'attention\.qv', which matches nothing"):
        trainable_parameters(Strategy(adapt=(Adapter(targets=("attention.qv",)),)), GPT2Model("mini"), 2)


def test_adapters_of_the_last_block_leave_the_rest_below_the_cut() -> None:
    strategy = Strategy(adapt=(Adapter(rank=2, targets=("block.-1.attention.query",)),))
    prefix, suffix = split(GPT2(SHAPES["mini"]), strategy, 2)
    assert prefix.facts.boundary == "block.3"
    assert parameter_counts(prefix, suffix)[1] == 2 * (128 + 128) + 258


@pytest.mark.parametrize("name", ["lora", "lora_qv", "dora", "ia3"])
def test_a_merged_layer_computes_what_the_adapted_one_does(name: str) -> None:
    torch.manual_seed(0)
    _, suffix = split(GPT2(SHAPES["mini"]), strategies.load(name).strategy, 2)
    layers = [module for module in suffix.double().modules() if isinstance(module, AdaptedLinear)]
    for layer in layers:
        for added in layer.added():
            nn.init.normal_(added)
        hidden = torch.randn(5, layer.in_features, dtype=torch.float64)
        expected = nn.functional.linear(hidden, *layer.merged())
        torch.testing.assert_close(layer(hidden), expected, rtol=1e-10, atol=1e-10)
    assert layers


def test_the_rank_of_a_run_can_be_changed(run_here: Callable) -> None:
    options = {"data__size": 50, "training__epochs": 0}
    records = [run_here(strategy=["lora"], adapter__rank=rank, **options)[0] for rank in (2, 4)]
    small, large = (record.model.trainable_parameters for record in records)
    head = 128 * 2 + 2
    assert large - head == 2 * (small - head)


def test_declarations_are_frozen() -> None:
    declared = strategies.load("last_block").strategy
    with pytest.raises(AttributeError):
        declared.readout = "first"
    assert hash(Strategy(adapt=(Adapter(),), input=Input("longest")))
