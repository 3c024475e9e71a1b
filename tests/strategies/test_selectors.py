"""Selectors of what is trained: parts of blocks, norms and biases, on every mapped network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from harness import Strategy
from harness.errors import UserError
from harness.model.gpt2 import GPT2
from harness.model.hub.families import FAMILIES
from harness.model.hub.loading import HubModel
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from harness.model.selectors import selected_parameters
from harness.model.split import split
from harness.planning.strategy import trainable_parameters
from harness.results.store import Store
from tests.support.hub_models import save_small

HIDDEN, BLOCKS = SHAPES["mini"].hidden, SHAPES["mini"].blocks
HEAD = 2 * HIDDEN + 2


def _trained(*names: str) -> tuple[str, set[str]]:
    """Where mini is cut, and the names of its trained parameters; those of the head come without saying."""
    backbone = GPT2(SHAPES["mini"])
    prefix, suffix = split(backbone, Strategy(trainable=names), 2)
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    trained = {id(parameter) for parameter in suffix.parameters() if parameter.requires_grad}
    return prefix.facts.boundary, {name for name, value in backbone.named_parameters() if id(value) in trained}


@pytest.mark.parametrize(
    ("name", "per_block", "elsewhere"),
    [
        ("attention.query", HIDDEN * (HIDDEN + 1), 0),
        ("attention", 4 * HIDDEN * (HIDDEN + 1), 0),
        ("mlp", HIDDEN * (8 * HIDDEN + 5), 0),
        ("mlp.contract", HIDDEN * (4 * HIDDEN + 1), 0),
        ("norm", 4 * HIDDEN, 2 * HIDDEN),
        ("norm.bias", 2 * HIDDEN, HIDDEN),
        ("mlp.expand.bias", 4 * HIDDEN, 0),
        ("all.bias", 11 * HIDDEN, HIDDEN),
    ],
)
def test_parts_are_of_every_block(name: str, per_block: int, elsewhere: int) -> None:
    trained = trainable_parameters(Strategy(trainable=(name,)), GPT2Model("mini"), 2)
    assert trained == BLOCKS * per_block + elsewhere + HEAD


@pytest.mark.parametrize(
    ("names", "boundary", "expected"),
    [
        (("block.-1.attention.query.bias",), "block.3", {"blocks.3.attention.query.bias"}),
        (("final_norm.bias",), "final_norm", {"final_norm.bias"}),
        (
            ("block.1.norm.bias", "block.2.mlp.expand"),
            "block.1",
            {
                *(f"blocks.1.{norm}_norm.bias" for norm in ("attention", "mlp")),
                *(f"blocks.2.mlp.expand.{kind}" for kind in ("weight", "bias")),
            },
        ),
    ],
)
def test_what_a_selector_leaves_out_stays_frozen_and_the_cut_follows(
    names: tuple[str, ...], boundary: str, expected: set[str]
) -> None:
    assert _trained(*names) == (boundary, expected)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("attention.qery", "attention.query"), ("biases", "bias"), ("block.-1.nrom", "block.-1.norm"), ("mpl", "mlp")],
)
def test_a_selector_that_matches_nothing_is_named_with_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"names '{given}', which matches nothing.*did you mean.*'{meant}'"):
        _trained(given)


@pytest.mark.parametrize("name", ["embeddings.bias", "final_norm.attention", "embeddings.norm", "block.9.bias"])
def test_a_part_that_a_stage_does_not_have_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"names '{name}'"):
        _trained(name)


def test_a_wrong_selector_is_refused_before_anything_runs(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text('from harness import Strategy\nstrategy = Strategy(trainable=("attention.querry",))\n')
    assert "did you mean 'attention.query'" in refused("--strategy", str(path))
    assert Store(tmp_path / "results").all() == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_mapped_network_has_the_parts(tmp_path: Path, family: str) -> None:
    """All its Linear layers have one name each, and a norm is what it calls one."""
    backbone = HubModel(save_small(tmp_path, family)).empty()
    for block in backbone.blocks:
        linears = {name for name, module in block.named_modules() if isinstance(module, nn.Linear)}
        assert linears == set(backbone.parts.values())
    stages = backbone.stages()
    query, key, value = (f"attention.{one}" for one in ("query", "key", "value"))
    if query in backbone.parts:
        shapes = [{tuple(p.shape) for p in selected_parameters(stages, backbone.parts, one)} for one in (key, value)]
        assert shapes[0] == shapes[1]
    else:
        with pytest.raises(UserError, match=r"did you mean 'attention\.query_key_value'"):
            selected_parameters(stages, backbone.parts, query)
    norms = selected_parameters(stages, backbone.parts, "norm")
    assert {id(one) for one in norms} == {id(p) for n, p in backbone.named_parameters() if _is_of_norm(n, backbone)}
    has_biases = any(name.endswith("bias") for name, _ in backbone.named_parameters())
    if has_biases:
        assert selected_parameters(stages, backbone.parts, "bias")
    else:
        with pytest.raises(UserError, match="'bias', which matches nothing"):
            selected_parameters(stages, backbone.parts, "bias")


def _is_of_norm(name: str, backbone: nn.Module) -> bool:
    """A norm's parameters are vectors, of a module that is neither a matrix nor a table."""
    owner = backbone.get_submodule(name.rpartition(".")[0])
    return not isinstance(owner, nn.Linear | nn.Embedding)
