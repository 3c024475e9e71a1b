"""Readouts: what is read of the tokens, and at which layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import Adapter, Strategy
from harness.errors import UserError
from harness.model.gpt2 import GPT2
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from harness.model.packing import PackedBatch
from harness.model.readout import readout_of
from harness.model.split import parameter_counts, split
from harness.planning.strategy import trainable_parameters
from tests.support.hub_models import save_small, write_texts
from tests.support.runs import losses_of, predicted_by


def _rows(lengths: list[int], width: int | None) -> PackedBatch:
    return PackedBatch.padded(np.array(lengths), width) if width else PackedBatch.packed(np.array(lengths))


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    padding=st.none() | st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_they_read_the_attended_tokens_of_each_row_alone(lengths: list[int], padding: int | None, seed: int) -> None:
    """NumPy over the rows one by one is the oracle; what stands in padding and filler changes nothing."""
    batch = _rows(lengths, None if padding is None else max(lengths) + padding)
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(batch.positions()), 6, dtype=torch.float64, generator=random)
    query = torch.randn(6, dtype=torch.float64, generator=random)
    attention = readout_of("attention", 6).double()
    attention.get_parameter("query").data.copy_(query)
    rows = [hidden[start : start + length].numpy() for start, length in zip(batch.starts, batch.lengths, strict=True)]
    weights = [np.exp(row @ query.numpy()) for row in rows]
    expected = {
        "max": [row.max(axis=0) for row in rows],
        "attention": [weight @ row / weight.sum() for weight, row in zip(weights, rows, strict=True)],
    }
    found = {"max": readout_of("max", 6)(hidden, batch), "attention": attention(hidden, batch).detach()}
    for kind, values in expected.items():
        np.testing.assert_allclose(found[kind].numpy(), np.stack(values), rtol=1e-10, err_msg=kind)


def test_an_untrained_query_reads_the_mean_and_learns() -> None:
    batch, hidden = _rows([3, 5], None), torch.randn(32, 6)
    attention = readout_of("attention", 6)
    read = attention(hidden, batch)
    torch.testing.assert_close(read, readout_of("mean", 6)(hidden, batch))
    read.square().sum().backward()
    assert attention.get_parameter("query").grad.abs().min() > 0


@pytest.mark.parametrize(
    ("strategy", "boundary", "extra"),
    [
        (Strategy(readout="max"), "head", 0),
        (Strategy(readout="attention"), "readout", 128),
        (Strategy(readout="attention", trainable=("block.-1",)), "block.3", 128 + 198_272),
        (Strategy(readout_layer=1, trainable=("block.-1",)), "block.1", 198_272),
        (Strategy(readout_layer=0, adapt=(Adapter(1),)), "embeddings", 18 * 128 + 128 + 2),
    ],
)
def test_what_is_trained_and_where_the_cut_lies(strategy: Strategy, boundary: str, extra: int) -> None:
    prefix, suffix = split(GPT2(SHAPES["mini"]), strategy, 2)
    assert prefix.facts.boundary == boundary
    assert parameter_counts(prefix, suffix)[1] == 258 + extra
    assert [*prefix.names, *suffix.names][-1] == "final_norm"


@pytest.mark.parametrize("layer", [-5, 4])
def test_a_layer_that_does_not_exist_is_refused(layer: int, refused: Callable) -> None:
    with pytest.raises(UserError, match=f"readout_layer={layer}: this backbone has no such block; .* -4 to 3"):
        trainable_parameters(Strategy(readout_layer=layer), GPT2Model("mini"), 2)
    assert "no such block" in refused("--strategy", "head_only", "--set", f"readout_layer={layer}")


def test_blocks_above_the_layer_are_not_there() -> None:
    with pytest.raises(UserError, match=r"'block\.N' with N from -2 to 1"):
        trainable_parameters(Strategy(trainable=("block.2",), readout_layer=1), GPT2Model("mini"), 2)


def test_every_layers_probe_equals_the_plain_path(run_here: Callable, tmp_path: Path) -> None:
    """Whatever features of other layers are stored; and the last layer is the strategy as declared."""
    common = {"strategy": ["head_only"], "data__size": 60, "training__epochs": 1, "precision": "fp64"}
    common |= {"optimizer__learning_rate": 1e-2}
    losses = {}
    for layer in (3, 1, 0, 2):
        for plain in (False, True):
            (record,) = run_here(**common, readout_layer=layer, plain=plain)
            losses[layer, plain] = losses_of(tmp_path / "results", record)
        assert losses[layer, False] == pytest.approx(losses[layer, True], abs=1e-9)
    (declared,) = run_here(**common)
    assert losses_of(tmp_path / "results", declared) == losses[3, False]
    assert len({tuple(found) for (_, plain), found in losses.items() if not plain}) == 4


@pytest.mark.parametrize("readout", ["max", "attention"])
@pytest.mark.parametrize("strategy", ["head_only", "last_block"])
def test_a_readout_equals_the_plain_path(run_here: Callable, tmp_path: Path, strategy: str, readout: str) -> None:
    common = {"strategy": [strategy], "data__size": 60, "training__epochs": 1, "precision": "fp64"}
    common |= {"optimizer__learning_rate": 1e-3, "readout": readout}
    (fast,), (plain,) = run_here(**common), run_here(**common, plain=True)
    assert fast.prefix.not_stored is None
    folder = tmp_path / "results"
    assert losses_of(folder, fast) == pytest.approx(losses_of(folder, plain), abs=1e-9)
    assert predicted_by(folder, fast) == predicted_by(folder, plain)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_middle_layer_of_other_backbones_is_read(run_here: Callable, tmp_path: Path, family: str) -> None:
    model = f"hf:{save_small(tmp_path / family, family)}"
    data = str(write_texts(tmp_path / "messages.csv", shortest=2, longest=9))
    options = {"model__name": model, "data__name": data, "training__epochs": 1, "readout_layer": 1}
    records = run_here(strategy=["head_only", "last_block"], **options)
    assert [(record.status, record.prefix.boundary) for record in records] == [("ok", "head"), ("ok", "block.1")]
