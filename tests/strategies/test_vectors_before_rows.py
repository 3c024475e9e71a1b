"""Prefix and prompt tuning: equal to tokens that stand before a row, whatever it is batched with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import PrefixTuning, PromptTuning, Strategy, kernels
from harness.config.strategy import AttentionKind
from harness.errors import UserError
from harness.model.adapters.prefix import PrefixedAttention
from harness.model.adapters.prompt import PromptedEmbedding
from harness.model.gpt2 import GPT2Block
from harness.model.named.models import GPT2Model
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import BatchShape, PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Prefix, Suffix, split
from harness.planning.strategy import trainable_parameters
from harness.serving.classifier import Classifier
from tests.support.runs import losses_of, predicted_by

CPU = torch.device("cpu")
LENGTHS = np.array([3, 17, 1, 9])
LENGTH = 4
TOP = "from harness import PrefixTuning, Strategy\n\nstrategy = Strategy(adapt=(PrefixTuning(4, ('block.-1',)),))\n"
STRATEGIES = {
    "prefix": Strategy(adapt=(PrefixTuning(LENGTH),)),
    "prefix of some blocks": Strategy(adapt=(PrefixTuning(LENGTH, ("block.-1", "block.1")),)),
    "prompt": Strategy(adapt=(PromptTuning(LENGTH),)),
}


def _cut(strategy: Strategy) -> tuple[Prefix, Suffix]:
    torch.manual_seed(0)
    prefix, suffix = split(filled_backbone("mini", RandomWeights("pytorch", 1)), strategy, 3)
    prefix.place(CPU, "fp64")
    return prefix, suffix.double()


@torch.no_grad()
def _logits(parts: tuple[Prefix, Suffix], rows: list[Tensor], width: int | None = None) -> Tensor:
    """[rows, classes]. width: that rows are padded to; None: packed."""
    prefix, suffix = parts
    lengths = np.array([len(row) for row in rows])
    batch = PackedBatch.padded(lengths, width) if width else PackedBatch.packed(lengths)
    padded = [torch.nn.functional.pad(row, (0, width - len(row)), value=7) for row in rows] if width else rows
    return suffix(prefix.features(batch.pack(torch.cat(padded)), batch), batch)


def _rows(lengths: np.ndarray = LENGTHS) -> list[Tensor]:
    ids = torch.from_numpy(np.random.default_rng(3).integers(0, 640, lengths.sum()))
    return list(ids.split(lengths.tolist()))


@pytest.mark.parametrize("attention", ["causal", "full"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_logits_do_not_depend_on_what_a_row_is_batched_with(name: str, attention: AttentionKind) -> None:
    declared = STRATEGIES[name]
    parts = _cut(Strategy(adapt=declared.adapt, attention=attention, readout="mean"))
    alone = torch.cat([_logits(parts, [row]) for row in _rows()])
    torch.testing.assert_close(_logits(parts, _rows()), alone, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(_logits(parts, _rows(), width=20), alone, atol=1e-10, rtol=1e-10)
    for part in parts:
        kernels.optimize(part, CPU, "fp64")
    torch.testing.assert_close(_logits(parts, _rows()), alone, atol=1e-10, rtol=1e-10)


def test_an_untrained_prompt_is_tokens_before_the_row() -> None:
    prefix, suffix = _cut(STRATEGIES["prompt"])
    (table,) = (module for module in suffix.modules() if isinstance(module, PromptedEmbedding))
    first = torch.cat([(table.weight == vector).all(1).nonzero()[0] for vector in table.prompt])
    head_only = _cut(Strategy())
    head_only[1].head.load_state_dict(suffix.head.state_dict())
    read = head_only[0].features
    for row, logits in zip(_rows(), _logits((prefix, suffix), _rows()), strict=True):
        longer = torch.cat([first, row])
        batch = PackedBatch.packed(np.array([len(longer)]))
        expected = suffix.head(read(batch.pack(longer), batch))[0]
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_keys_and_values_of_tokens_are_tokens_before_the_row() -> None:
    """In every block, with the positions that they leave to the row."""
    parts = _cut(STRATEGIES["prefix"])
    first = torch.tensor([5, 600, 5, 77])
    alone = PackedBatch.packed(np.array([LENGTH]))
    backbone = filled_backbone("mini", RandomWeights("pytorch", 1)).double()
    hidden = backbone.embeddings(alone.pack(first), alone)
    for block, prefixed in zip(backbone.blocks, _blocks(parts[1]), strict=True):
        assert isinstance(block, GPT2Block)
        normalized = block.attention_norm(hidden)[:LENGTH]
        prefixed.keys.copy_(block.attention.key(normalized))
        prefixed.values.copy_(block.attention.value(normalized))
        hidden = block(hidden, alone)
    for row, logits in zip(_rows(), _logits(parts, _rows()), strict=True):
        longer = torch.cat([first, row])
        batch = PackedBatch.packed(np.array([len(longer)]))
        expected = parts[1].head(backbone(batch.pack(longer), batch)[len(longer) - 1])
        torch.testing.assert_close(logits, expected, atol=1e-10, rtol=1e-10)


def _blocks(suffix: Suffix) -> list[PrefixedAttention]:
    return [module for module in suffix.modules() if isinstance(module, PrefixedAttention)]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.sampled_from([0, 5]))
def test_a_lengthened_batch_is_that_of_longer_rows(lengths: list[int], length: int, wider: int) -> None:
    """With filler, and wider than its rows, as a captured step has it."""
    of_rows = np.array(lengths)
    shape = BatchShape.of(of_rows)
    shape = BatchShape(shape.rows, shape.tokens, shape.width + wider, shape.filler_rows)
    batch = PackedBatch.packed(of_rows, shape)
    longer = batch.lengthened(length)
    filler = shape.tokens - of_rows.sum()
    expected = PackedBatch.packed(
        of_rows + length,
        BatchShape(len(lengths), int((of_rows + length).sum() + filler), shape.width + length, shape.filler_rows),
    )
    assert longer.width == expected.width
    for name in ("starts", "lengths", "slots"):
        assert torch.equal(getattr(longer, name), getattr(expected, name)), name
    assert longer.boundaries[: len(lengths) + 1].tolist() == expected.boundaries[: len(lengths) + 1].tolist()
    assert longer.boundaries[-1] == len(longer.slots)
    behind = longer.positions()[batch.places_behind(length)[: of_rows.sum()]]
    assert torch.equal(behind, batch.positions()[: of_rows.sum()] + length)


def test_a_prefix_of_the_top_block_leaves_the_features_below_as_they_are(run_here: Callable, tmp_path: Path) -> None:
    (tmp_path / "top.py").write_text(TOP)
    """And to a row the full context."""
    common = {"data__size": 100, "data__max_tokens": 256, "training__epochs": 1, "precision": "fp64"}
    run_here(strategy=["last_block"], **common)
    (fast,) = run_here(strategy=[str(tmp_path / "top.py")], **common)
    assert fast.prefix.boundary == "block.3"
    assert fast.prefix.computed_tokens == 0, "last_block has computed them"
    (plain,) = run_here(strategy=[str(tmp_path / "top.py")], **common, plain=True)
    folder = tmp_path / "results"
    assert losses_of(folder, fast) == pytest.approx(losses_of(folder, plain), abs=1e-9)
    assert predicted_by(folder, fast) == predicted_by(folder, plain)


@pytest.mark.parametrize("name", STRATEGIES)
def test_in_bfloat16_logits_are_near_and_all_that_is_trained_has_a_gradient(name: str) -> None:
    expected = _logits(_cut(STRATEGIES[name]), _rows())
    torch.manual_seed(0)
    prefix, suffix = split(filled_backbone("mini", RandomWeights("pytorch", 1)), STRATEGIES[name], 3)
    prefix.place(CPU, "bf16")
    kernels.optimize(suffix, CPU, "bf16")
    batch = PackedBatch.packed(LENGTHS)
    features = prefix.features(batch.pack(torch.cat(_rows())), batch)
    logits = InPrecision(suffix, "bf16", CPU)(features, batch)
    torch.testing.assert_close(logits.double(), expected, atol=0.03, rtol=0.03)
    logits.sum().backward()
    trained = [parameter for parameter in suffix.parameters() if parameter.requires_grad]
    assert all(parameter.dtype == torch.float32 and parameter.grad.abs().sum() > 0 for parameter in trained)


@pytest.mark.parametrize("target", ["block.4", "embeddings", "attention", "", "block.-1.mlp"])
def test_a_target_that_is_no_block_is_named(target: str) -> None:
    with pytest.raises(UserError, match=r"which is no block of this backbone: .* from -4 to 3") as caught:
        trainable_parameters(Strategy(adapt=(PrefixTuning(1, (target,)),)), GPT2Model("mini"), 2)
    assert repr(target) in str(caught.value)


def test_blocks_that_several_targets_name_have_one_prefix() -> None:
    strategy = Strategy(adapt=(PrefixTuning(5, ("all", "block.-1", "block.3")),))
    assert trainable_parameters(strategy, GPT2Model("mini"), 2) == 4 * 2 * 5 * 128 + 258


@pytest.mark.parametrize("name", ["prefix_tuning", "prompt_tuning"])
def test_rows_without_room_are_refused(refused: Callable, run_here: Callable, tmp_path: Path, name: str) -> None:
    told = refused("--strategy", name, "--set", "data.max_tokens=237")
    assert f"strategy '{name}' puts 20 trained vectors before each row" in told
    assert "room for 236 tokens in the context of mini (256): expected room for 237" in told
    assert "expected room for 240" in refused("--strategy", name, "--set", "pad_to=240")
    kind = {"prefix_tuning": "PrefixTuning", "prompt_tuning": "PromptTuning"}[name]
    (tmp_path / "long.py").write_text(f"from harness import *\n\nstrategy = Strategy(adapt=({kind}(256),))\n")
    assert "room for 0 tokens" in refused("--strategy", str(tmp_path / "long.py"))


@pytest.mark.parametrize("name", ["prefix_tuning", "prompt_tuning"])
def test_a_text_is_cut_where_the_context_ends(run_here: Callable, tmp_path: Path, name: str) -> None:
    """In its run, and by the saved classifier."""
    texts = [f"{word} " * 400 for word in ("buy", "see")] * 10
    table = "".join(f"{text},{label}\n" for text, label in zip(texts, "ab" * 10, strict=True))
    (tmp_path / "long.csv").write_text("text,label\n" + table)
    options = {"data__name": str(tmp_path / "long.csv"), "training__epochs": 0, "training__batch_size": 2}
    (record,) = run_here(strategy=[name], save=True, **options)
    assert record.status == "ok"
    assert record.data.cut_texts == 20
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    assert classifier.encode(texts[:1]).lengths.tolist() == [236]
    assert classifier.predict(texts[:3]).cut == 3
