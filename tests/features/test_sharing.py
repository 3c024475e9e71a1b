"""Texts that begin alike: their hidden states there are computed once, and only where that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import strategies
from harness.config.strategy import Readout, Strategy
from harness.features.distinct import DistinctRows
from harness.kernels.shared_beginnings import SharedBeginnings
from harness.model.gpt2 import GPT2
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.model.split import PrefixFacts
from tests.features.test_features import examples_of, open_store

# Few letters, so that rows often begin alike.
texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20)
few = settings(max_examples=60)

CAUSAL = PrefixFacts("head", reads=None, cacheable=True, causal=True)
TOGETHER = 1000  # more tokens than those texts have: one chunk

ALIKE = [[7, 8, 9, 1], [7, 8, 9, 2, 3], [7, 8], [4, 5, 6], [7, 8, 9, 2, 3, 5, 5]]
PARTS = {"train": examples_of(ALIKE[:3]), "test": examples_of(ALIKE[3:])}
OF_THEIR_OWN = 2 + 2 + 2 + 2 + 3  # [7 8] [9 1] [2 3] [5 5] [4 5 6]


def _tokens(row: bytes) -> list[int]:
    return np.frombuffer(row, np.int32).tolist()


@given(texts, st.integers(1, 60), st.booleans())
@few
def test_chunks_hold_each_distinct_row_once(rows: list[list[int]], tokens: int, causal: bool) -> None:
    distinct = DistinctRows.of({"all": examples_of(rows)}, PrefixFacts("head", None, True, causal), tokens=tokens)
    assert [_tokens(distinct.rows[number]) for number in distinct.indices["all"]] == rows
    found, computed = [], 0
    for chunk in distinct.chunks:
        own = distinct.token_lengths[chunk] - distinct.shared[chunk]
        assert distinct.shared[chunk.start] == 0
        assert len(own) == 1 or own.sum() <= tokens
        found += [distinct.rows[number] for number in chunk]
        computed += own.sum()
    assert sorted(map(_tokens, found)) == sorted(map(list, {tuple(row) for row in rows}))
    assert distinct.computed_tokens == computed
    if not causal:
        assert computed == distinct.token_lengths.sum()
    elif len(distinct.chunks) == 1:
        assert computed == len({tuple(row[: end + 1]) for row in rows for end in range(len(row))})


@given(texts)
@few
def test_what_is_packed_comes_back(rows: list[list[int]]) -> None:
    """A token's beginning stands for its hidden state, which depends on nothing else."""
    distinct = DistinctRows.of({"all": examples_of(rows)}, CAUSAL, tokens=TOGETHER)
    sharing = SharedBeginnings.of(distinct.token_lengths, distinct.shared)
    each = list(map(_tokens, distinct.rows))
    states = torch.tensor([hash(tuple(row[: end + 1])) for row in each for end in range(len(row))])
    packed = sharing.pack(states)
    held = packed[packed != 0].tolist()
    assert sorted(held) == sorted(set(states.tolist())), "each of them once"
    assert torch.equal(sharing.unpack(packed), states)
    assert torch.equal(
        sharing.unpack(sharing.positions()), torch.tensor([at for row in each for at in range(len(row))])
    )
    rectangle = sharing.rectangle(packed[:, None])
    assert torch.equal(sharing.unpack(sharing.flatten(rectangle)[:, 0]), states)
    alone, unshared = sharing.unshared(packed)
    assert (type(unshared), unshared.unpack(alone).tolist()) == (PackedBatch, states.tolist())


@given(texts)
@settings(max_examples=15)
def test_hidden_states_are_those_of_each_row_alone(rows: list[list[int]]) -> None:
    backbone = filled_backbone("mini", RandomWeights("gpt2", 0)).double()
    distinct = DistinctRows.of({"all": examples_of(rows)}, CAUSAL, tokens=TOGETHER)
    sharing = SharedBeginnings.of(distinct.token_lengths, distinct.shared)
    ids = [torch.tensor(_tokens(row)) for row in distinct.rows]
    with torch.no_grad():
        together = sharing.unpack(backbone(sharing.pack(torch.cat(ids)), sharing))
        alone = [backbone(row, PackedBatch.padded(np.array([len(row)]), len(row))) for row in ids]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


@pytest.mark.parametrize("readout", ["first", "last", "mean"])
@pytest.mark.parametrize("trainable", [("block.-1",), ("final_norm",), ()])
def test_features_are_what_each_text_gives_alone(tmp_path: Path, readout: Readout, trainable: tuple[str, ...]) -> None:
    strategy = Strategy(trainable=trainable, readout=readout)
    stored, store, _ = open_store(tmp_path, strategy, PARTS)
    assert store.computed_tokens == OF_THEIR_OWN
    alone, _, _ = open_store(tmp_path, strategy, PARTS, limit_bytes=0)
    for name, part in PARTS.items():
        for number in range(len(part)):
            (ours, rows), (theirs, _) = (features[name].batch(np.array([number])) for features in (stored, alone))
            count = int(rows.lengths.sum())
            torch.testing.assert_close(ours[:count], theirs[:count], atol=1e-6, rtol=1e-5)


def test_nothing_is_shared_where_tokens_see_what_follows(tmp_path: Path) -> None:
    for name in ("no_causal_mask", "head_only"):
        _, store, _ = open_store(tmp_path, strategies.load(name).strategy, PARTS)
        assert (store.computed_tokens == OF_THEIR_OWN) == (name == "head_only")


def test_nothing_is_shared_where_code_of_a_third_party_builds_the_prefix(tmp_path: Path) -> None:
    def build(backbone: GPT2) -> None:
        backbone.blocks[0].attention.attend.causal = False
        backbone.blocks[-1].requires_grad_(True)

    seeing, store, _ = open_store(tmp_path, Strategy(build=build), PARTS)
    assert store.computed_tokens == sum(map(len, ALIKE))
    blind, _, _ = open_store(tmp_path, strategies.load("last_block").strategy, PARTS)
    assert not torch.allclose(seeing["train"].batch(np.array([0]))[0], blind["train"].batch(np.array([0]))[0])


def test_a_run_counts_what_was_computed(run_here: Callable) -> None:
    """Messages of the generator often begin alike."""
    causal, seeing = run_here(strategy=["last_block", "no_causal_mask"], training__epochs=0)
    assert 0 < causal.prefix.computed_tokens < seeing.prefix.computed_tokens
