"""Rows of the token embedding that no text looks up: not trained, and as weight decay alone leaves them at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import strategies
from harness.kernels.occurring_tokens import OccurringTokens, train_occurring_tokens
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import Suffix, split
from harness.results.record import Record
from tests.features.test_features import examples_of

PARTS = {"train": examples_of([[5, 6, 7], [300]]), "test": examples_of([[5, 9]])}
TOKEN = "stages.0.token.weight"


def _suffix(name: str) -> Suffix:
    return split(filled_backbone("mini", RandomWeights("gpt2", 0)), strategies.load(name).strategy, classes=2)[1]


def test_they_are_full_table_where_the_embedding_is_trained() -> None:
    whole, short = _suffix("full"), _suffix("full")
    full_table = train_occurring_tokens(short, PARTS)
    assert full_table.ids.tolist() == [0, 5, 6, 7, 9, 300]
    parameters, of_whole = dict(short.named_parameters()), dict(whole.named_parameters())
    assert list(parameters) == list(of_whole)
    assert parameters[TOKEN].requires_grad
    assert torch.equal(parameters[TOKEN], of_whole[TOKEN][full_table.ids])
    assert isinstance(short.stages[0].token, OccurringTokens)
    complete = full_table.complete(parameters, untrained_factor=1)
    assert torch.equal(complete[TOKEN], of_whole[TOKEN])
    for name in ("last_block", "lora"):
        suffix = _suffix(name)
        assert train_occurring_tokens(suffix, PARTS) is None
        assert suffix.names[0] != "embeddings" or type(suffix.stages[0].token) is torch.nn.Embedding


@pytest.mark.parametrize(
    ("strategy", "decay", "schedule"),
    [
        pytest.param("full", 0.0, "constant", marks=pytest.mark.long),
        pytest.param("full", 0.1, "constant", marks=pytest.mark.long),
        ("full", 0.1, "cosine"),
        ("layer_decay", 0.1, "cosine"),
    ],
)
def test_the_whole_table_is_what_the_plain_path_trains(
    run_here: Callable, tmp_path: Path, strategy: str, decay: float, schedule: str
) -> None:
    """In float64, with rows that no text looks up, which only shrink. A high rate, so that this shows."""

    def trained(results: str, plain: bool) -> tuple[Record, dict[str, torch.Tensor]]:
        (record,) = run_here(
            results=results,
            save=True,
            strategy=[strategy],
            precision="fp64",
            plain=plain,
            data__size=60,
            training__epochs=2,
            optimizer__learning_rate=1e-3,
            optimizer__weight_decay=decay,
            optimizer__schedule=schedule,
            optimizer__warmup=0.2 if schedule == "cosine" else 0.0,
        )
        return record, load_file(next((tmp_path / results / "classifier").glob("*.safetensors")))

    (fast_record, fast), (plain_record, plain) = trained("fast", plain=False), trained("plain", plain=True)
    assert fast.keys() == plain.keys()
    assert fast[TOKEN].shape == plain[TOKEN].shape == (640, 128)
    for name, values in plain.items():
        torch.testing.assert_close(fast[name], values, atol=1e-9, rtol=1e-9)
    assert fast_record.model == plain_record.model, "all parameters count as trained"
    assert fast_record.memory is not None


def test_their_losses_are_the_same(run_here: Callable, tmp_path: Path) -> None:
    """To the bit: with the whole table and without."""
    options = {"strategy": ["full"], "data__size": 60, "training__epochs": 1, "seed": [0]}
    (record,) = run_here(**options)
    losses = (tmp_path / "results" / "runs" / record.run_id / "losses.csv").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.experiment.cut_model.train_occurring_tokens", lambda suffix, examples: None)
        (again,) = run_here(results="whole", **options)
    assert (tmp_path / "whole" / "runs" / again.run_id / "losses.csv").read_bytes() == losses
    assert np.isfinite(record.metrics.test.loss)
