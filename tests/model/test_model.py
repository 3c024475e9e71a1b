"""GPT-2 against `transformers`, the cut against the whole, and rows against their padding."""

from __future__ import annotations

import copy
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import strategies
from harness import Strategy, kernels
from harness.model.gpt2 import GPT2
from harness.model.meta import on_meta_device
from harness.model.named.continuation import continue_greedily
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import Checkpoint, RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.model.split import Prefix, Suffix, split
from tests.support.strategies import every_strategy

BUILT_IN = strategies.built_in_names()
VOCABULARY = SHAPES["mini"].vocabulary


@pytest.fixture(scope="module")
def peer() -> GPT2LMHeadModel:
    """A full-size model of `transformers` in which no bias is zero and no norm is one, so that no swap goes unseen."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def random_rows(lengths: list[int], vocabulary: int, seed: int = 0) -> tuple[Tensor, PackedBatch]:
    """Token ids [tokens] of packed rows."""
    token_ids = torch.randint(0, vocabulary, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    rows = PackedBatch.packed(np.array(lengths))
    return rows.pack(token_ids), rows


def random_backbone(name: str, init: str, seed: int) -> GPT2:
    return filled_backbone(name, RandomWeights(init, seed))


@pytest.mark.parametrize(
    ("dtype", "prefixed"),
    [(torch.float32, True), (torch.float16, False), pytest.param(torch.bfloat16, True, marks=pytest.mark.long)],
)
def test_logits_of_a_published_checkpoint_equal_transformers(
    peer: GPT2LMHeadModel, tmp_path: Path, dtype: torch.dtype, prefixed: bool
) -> None:
    """Ours on packed rows, theirs on the same rows padded on the right."""
    token_ids, rows = random_rows([17, 5, 11], 50257)
    rounded = copy.deepcopy(peer).to(dtype)
    path = tmp_path / "model.safetensors"
    _save_as_published(rounded, path, prefixed)
    rounded.float()

    ours = filled_backbone("gpt2", Checkpoint(path))
    real = rows.attended()
    padded = torch.full((3, 17), 50256)
    padded[real] = token_ids[:33]
    with torch.no_grad():
        logits = ours.next_token_logits(ours(token_ids, rows))
        expected = rounded(padded, attention_mask=real.long()).logits[real]
    torch.testing.assert_close(logits[:33], expected, atol=1e-4, rtol=0)


def _save_as_published(model: GPT2LMHeadModel, path: Path, prefixed: bool) -> None:
    """With the stored mask buffers that the hub's files have, and with or without the `transformer.` prefix."""
    model.save_pretrained(path.parent)
    tensors = load_file(path)
    for index in range(12):
        tensors[f"transformer.h.{index}.attn.bias"] = torch.ones(1, 1, 1024, 1024, dtype=torch.uint8).tril()
        tensors[f"transformer.h.{index}.attn.masked_bias"] = torch.tensor(-1e4)
    names = {key: key if prefixed else key.removeprefix("transformer.") for key in tensors}
    save_file({names[key]: tensor for key, tensor in tensors.items()}, path)


def test_greedy_continuation_equals_transformers(peer: GPT2LMHeadModel, tmp_path: Path) -> None:
    peer.save_pretrained(tmp_path)
    prompt = [6109, 3626, 6100, 345]
    ours = continue_greedily(filled_backbone("gpt2", Checkpoint(tmp_path / "model.safetensors")), prompt, 8)
    theirs = peer.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=50256)
    assert ours == theirs[0, 4:].tolist()


def test_random_weights_follow_gpt2s_rule() -> None:
    model = random_backbone("gpt2", "gpt2", seed=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
    for matrix, deviation in (
        (model.embeddings.token.weight, 0.02),
        (model.embeddings.position.weight, 0.02),
        (model.blocks[5].attention.query.weight, 0.02),
        (model.blocks[5].attention.output.weight, 0.02 / 24**0.5),
        (model.blocks[5].mlp.contract.weight, 0.02 / 24**0.5),
    ):
        assert matrix.std().item() == pytest.approx(deviation, rel=0.02)
    assert model.blocks[5].mlp.expand.bias.abs().max() == 0
    assert (model.final_norm.weight == 1).all()
    again = random_backbone("gpt2", "gpt2", seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_pytorch_initialisation_is_pytorchs_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = random_backbone("mini", "pytorch", seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert model.embeddings.token.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert model.blocks[0].mlp.expand.bias.abs().max() > 0


def test_on_the_meta_device_nothing_is_drawn_and_elsewhere_all_is_as_ever() -> None:
    torch.manual_seed(5)
    expected = torch.nn.Linear(3, 4).weight
    torch.manual_seed(5)
    with on_meta_device():
        model = GPT2(SHAPES["mini"])
    assert all(parameter.is_meta and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.nn.Linear(3, 4).weight, expected)


def _cut(strategy: Strategy, plain: bool = False, backbone: GPT2 | None = None) -> tuple[Prefix, Suffix]:
    torch.manual_seed(1)
    model = backbone or random_backbone("mini", "pytorch", seed=0)
    prefix, suffix = split(model, strategy, classes=3)
    prefix.place(torch.device("cpu"), "fp64")
    for part in () if plain else (prefix, suffix):
        kernels.optimize(part, torch.device("cpu"), "fp64")
    return prefix, suffix.double()


def _logits(prefix: Prefix, suffix: Suffix, token_ids: Tensor, rows: PackedBatch) -> Tensor:
    features = prefix.features(token_ids, rows)
    read = PackedBatch.packed(np.ones(len(rows.lengths), dtype=np.int64))
    return suffix(features, read if prefix.facts.reads else rows)


@pytest.mark.parametrize("name", every_strategy())
@settings(max_examples=10)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    extra=st.integers(0, 9),
    seed=st.integers(0, 1000),
    pad=st.integers(0, VOCABULARY - 1),
)
def test_a_row_gives_the_same_logits_alone_in_any_batch_and_with_any_padding(
    name: str, lengths: list[int], extra: int, seed: int, pad: int
) -> None:
    prefix, suffix = _cut(strategies.load(name).strategy)
    token_ids, rows = random_rows(lengths, VOCABULARY, seed)
    packed = _logits(prefix, suffix, token_ids, rows)
    width = max(lengths) + extra
    rectangle = torch.full((len(lengths), width), pad)
    real = token_ids[: sum(lengths)]
    rectangle[torch.arange(width) < rows.lengths[:, None]] = real
    padded = _logits(prefix, suffix, rectangle.flatten(), PackedBatch.padded(np.array(lengths), width))
    torch.testing.assert_close(padded, packed, atol=1e-10, rtol=1e-10)
    for row, ids in enumerate(real.split(lengths)):
        one = PackedBatch.packed(np.array([len(ids)]))
        alone = _logits(prefix, suffix, one.pack(ids), one)
        torch.testing.assert_close(alone[0], packed[row], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", BUILT_IN)
def test_reading_only_what_is_read_gives_the_plain_paths_logits_and_gradients(name: str) -> None:
    token_ids, rows = random_rows([9, 4, 12, 1], VOCABULARY)
    results = []
    for plain in (False, True):
        prefix, suffix = _cut(strategies.load(name).strategy, plain)
        logits = _logits(prefix, suffix, token_ids, rows)
        logits.square().sum().backward()
        gradients = {key: value.grad for key, value in suffix.named_parameters() if value.requires_grad}
        results.append((logits.detach(), gradients))
    (fast, fast_gradients), (plain_logits, plain_gradients) = results
    torch.testing.assert_close(fast, plain_logits, atol=1e-10, rtol=1e-10)
    # Also where the gradient is zero (queries and keys when the first token is read) there must be one, for the decay.
    for key, gradient in plain_gradients.items():
        torch.testing.assert_close(fast_gradients[key], gradient, atol=1e-9, rtol=1e-9, msg=key)


@pytest.mark.parametrize("trainable", [("block.-1", "final_norm"), (), ("final_norm",), ("all",), ("block.1",)])
def test_prefix_and_suffix_together_compute_what_the_backbone_does(trainable: tuple[str, ...]) -> None:
    backbone = random_backbone("mini", "gpt2", seed=0)
    token_ids, rows = random_rows([7, 3], VOCABULARY)
    with torch.no_grad():
        hidden = backbone.double()(token_ids, rows)
    prefix, suffix = _cut(Strategy(trainable=trainable), backbone=backbone)
    expected = suffix.head(hidden[[6, 9]])
    torch.testing.assert_close(_logits(prefix, suffix, token_ids, rows), expected, atol=1e-12, rtol=0)
    assert not any(parameter.requires_grad for parameter in prefix.parameters())


def _changes(strategy: Strategy, position: int) -> list[bool]:
    """Which of two rows, of 6 and 2 tokens, answer otherwise when the token at `position` of the first is another."""
    prefix, suffix = _cut(strategy)
    token_ids, rows = random_rows([6, 2], VOCABULARY)
    changed = token_ids.clone()
    changed[position] = (changed[position] + 1) % VOCABULARY
    before, after = (_logits(prefix, suffix, ids, rows) for ids in (token_ids, changed))
    return [not torch.allclose(a, b, atol=1e-12) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize(("readout", "position"), [("first", 0), ("last", 5), ("last", 2), ("mean", 3)])
def test_readouts_read_where_they_say(readout: str, position: int) -> None:
    assert _changes(Strategy(trainable=("block.-1",), readout=readout), position) == [True, False]


@pytest.mark.parametrize(("attention", "sees"), [("causal", False), ("full", True)])
def test_only_without_the_causal_mask_does_the_first_token_see_the_last(attention: str, sees: bool) -> None:
    strategy = Strategy(trainable=("block.-1",), readout="first", attention=attention)
    assert _changes(strategy, position=5) == [sees, False]


def test_an_unknown_stage_is_named() -> None:
    from harness.errors import UserError

    with pytest.raises(UserError, match=r"block\.7.*block\.N.*-4 to 3"):
        _cut(Strategy(trainable=("block.7",)))
