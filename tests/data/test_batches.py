"""Rows of token ids, and the one global order of batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.batching import batches_by_length, batches_in_order, global_batches, micro_batches, token_indices
from harness.data.encoding import RowRule, encode_split
from harness.data.tokenizer import END_OF_TEXT, load_tokenizer

few = settings(max_examples=60)


def encode(texts: list[str], rule: RowRule) -> dict:
    part = pd.DataFrame({"label": ["a", "b"] * len(texts), "text": [text for text in texts for _ in "ab"]})
    part.index = range(100, 100 + len(part))
    tokenizer = load_tokenizer("mini", Path(), None)
    return encode_split({"train": part, "test": part[::-1]}, tokenizer, ["a", "b"], rule)


@given(st.lists(st.text("abc de.!\n", min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 12))
@few
@pytest.mark.parametrize("pad_to", [None, "longest", 7])
def test_rows_hold_the_texts_own_tokens(pad_to: int | str | None, texts: list[str], context: int) -> None:
    tokenizer = load_tokenizer("mini", Path(), None)
    pad_to = min(pad_to, context) if isinstance(pad_to, int) else pad_to
    examples = encode(texts, RowRule(context, pad_to=pad_to))["train"]
    ids = [tokenizer.encode_ordinary(text) for text in texts for _ in "ab"]
    limit = {None: context, "longest": min(context, max(map(len, ids)))}.get(pad_to, pad_to)
    assert examples.real_lengths.tolist() == [min(len(row), limit) for row in ids]
    assert examples.cut_texts == sum(len(row) > limit for row in ids)
    for number, row in enumerate(ids):
        held = examples.token_ids[examples.offsets[number] : examples.offsets[number + 1]].tolist()
        padding = [tokenizer.encode_single_token(END_OF_TEXT)] * (limit - len(row)) if pad_to else []
        assert held == row[:limit] + padding
    assert examples.labels.tolist() == [0, 1] * len(texts)
    assert examples.index.tolist() == list(range(100, 100 + 2 * len(texts)))


@pytest.mark.parametrize(
    ("cut", "kept"),
    [("head", slice(0, 5)), ("tail", slice(-5, None)), ("middle", [0, 1, 2, -2, -1])],
)
def test_what_is_kept_of_a_long_text(cut: str, kept: slice | list[int]) -> None:
    tokenizer = load_tokenizer("mini", Path(), None)
    long = "please send the money today and then get the keys at noon"
    examples = encode([long, "short"], RowRule(5, cut))["train"]
    rows = [row.tolist() for row in np.split(examples.token_ids, examples.offsets[1:-1])]
    ids = np.array(tokenizer.encode_ordinary(long))
    assert rows[0] == ids[kept].tolist()
    assert rows[-1] == tokenizer.encode_ordinary("short")
    assert examples.cut_texts == 2


def test_both_ends_of_a_text_that_is_too_long_to_look_at_are_seen() -> None:
    long = "first " + "x" * 600_000 + " last"
    rows = {cut: encode([long], RowRule(4, cut))["train"].token_ids[:4] for cut in ("head", "tail")}
    tokenizer = load_tokenizer("mini", Path(), None)
    assert tokenizer.decode(rows["head"].tolist()).startswith("first")
    assert tokenizer.decode(rows["tail"].tolist()).endswith(" last")


def test_the_end_of_text_mark_in_a_text_is_plain_text() -> None:
    examples = encode([f"no {END_OF_TEXT} here"], RowRule(256))["train"]
    assert examples.pad_token not in examples.token_ids


counts, sizes = st.integers(1, 200), st.integers(1, 40)


@given(counts, sizes, st.integers(0, 9), st.integers(0, 9), st.booleans())
@few
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(
    count: int, batch_size: int, seed: int, epoch: int, drop_last: bool
) -> None:
    batches = global_batches(count, batch_size, seed, epoch, drop_last)
    again = global_batches(count, batch_size, seed, epoch, drop_last)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    numbers = [number for batch in batches for number in batch]
    kept = count // batch_size * batch_size if drop_last else count
    assert len(numbers) == len(set(numbers)) == kept
    assert set(numbers) <= set(range(count))
    assert all(len(batch) == batch_size for batch in batches[: None if drop_last else -1])
    whole = np.concatenate(global_batches(count, 1, seed, epoch, False))
    assert numbers == whole[:kept].tolist(), "the size of a batch cuts the order, it does not change it"


@given(st.integers(20, 200), st.integers(0, 9), st.integers(0, 9))
@few
def test_another_seed_or_epoch_is_another_order(count: int, seed: int, epoch: int) -> None:
    orders = {(s, e): global_batches(count, count, s, e, False)[0].tolist() for s in (seed, 77) for e in (epoch, 78)}
    assert len({tuple(order) for order in orders.values()}) == 4


@given(st.integers(1, 64), st.integers(1, 12), st.integers(1, 70))
@few
def test_micro_batches_count_each_example_once(size: int, world_size: int, micro_batch_size: int) -> None:
    batch = np.random.default_rng(size).permutation(1000)[:size]
    ranks = [micro_batches(batch, micro_batch_size, rank, world_size) for rank in range(world_size)]
    counted = [number for parts in ranks for part, counts in parts if counts for number in part]
    assert sorted(counted) == sorted(batch)
    assert len({len(parts) for parts in ranks}) == 1, "as many exchanges of gradients on every rank"
    assert all(0 < len(part) <= micro_batch_size for parts in ranks for part, _ in parts)
    shares = [sum(len(part) for part, counts in parts if counts) for parts in ranks]
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(1, 256), min_size=1, max_size=80), st.integers(1, 2000))
@few
def test_batches_by_length_hold_each_row_once(lengths: list[int], tokens: int) -> None:
    lengths = np.array(lengths)
    batches = batches_by_length(lengths, tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens for batch in batches)
    assert np.concatenate([lengths[batch] for batch in batches]).tolist() == sorted(lengths)


@given(counts, sizes)
@few
def test_batches_in_order(count: int, batch_size: int) -> None:
    batches = batches_in_order(count, batch_size)
    assert np.concatenate(batches).tolist() == list(range(count))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert 0 < len(batches[-1]) <= batch_size


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=20), st.data())
@few
def test_gathered_rows_are_the_rows(rows: list[list[int]], data: st.DataObject) -> None:
    flat, lengths = np.concatenate(rows), np.array([len(row) for row in rows])
    starts = np.cumsum(lengths) - lengths
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1)))
    gathered = flat[token_indices(starts[chosen], lengths[chosen])]
    assert gathered.tolist() == [value for number in chosen for value in rows[number]]
