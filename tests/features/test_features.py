"""The feature store: what it saves, when it must not be used, and what happens to it when things go wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import strategies
from harness import Strategy
from harness.config.schema import Precision
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.features.store import FeatureReport, FeatureStore
from harness.model.backbone import Stage
from harness.model.named.weights import RandomWeights, empty_backbone
from harness.model.split import Prefix, split

CPU = torch.device("cpu")
CACHED = [name for name in strategies.built_in_names() if name not in ("full", "lora")]


def examples_of(rows: list[list[int]]) -> Examples:
    lengths = [len(row) for row in rows]
    return Examples(
        token_ids=np.concatenate(rows).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        real_lengths=np.array(lengths),
        labels=np.zeros(len(rows), dtype=np.int64),
        index=np.arange(len(rows)),
        is_cut=np.zeros(len(lengths), dtype=bool),
        pad_token=0,
    )


def open_store(
    folder: Path,
    strategy: Strategy,
    examples: dict[str, Examples],
    seed: int = 0,
    limit_bytes: int = 10**9,
    change: Callable[[Prefix], None] | None = None,
    precision: Precision = "fp32",
) -> tuple[dict[str, Features], FeatureReport, Prefix]:
    backbone, weights = empty_backbone("mini"), RandomWeights("gpt2", seed)
    prefix, _ = split(backbone, strategy, classes=2)
    if change:
        weights.fill(backbone, prefix.names)
        change(prefix)

    fill = None if change else lambda stage: weights.fill(backbone, [stage])
    loader, store = PrefixLoader(prefix, fill, CPU, precision), FeatureStore(folder, limit_bytes, World(0, 1, CPU))
    return *store.open(loader, examples, backbone.shape.hidden, recipe=None), prefix


PARTS = {"train": examples_of([[5, 6, 7], [1], [5, 6, 7], [9] * 40]), "test": examples_of([[5, 6, 7], [2, 3]])}


@pytest.mark.parametrize("name", CACHED)
def test_stored_features_are_what_the_prefix_computes(tmp_path: Path, name: str) -> None:
    strategy = strategies.load(name).strategy
    stored, store, _ = open_store(tmp_path, strategy, PARTS)
    assert store.not_stored is None
    computed, _, _ = open_store(tmp_path, strategy, PARTS, limit_bytes=0)
    for part in PARTS:
        numbers = np.arange(len(PARTS[part]))[::-1].copy()
        (ours, our_rows), (theirs, their_rows) = (source[part].batch(numbers) for source in (stored, computed))
        count = int(our_rows.lengths.sum())  # what stands behind belongs to no row
        torch.testing.assert_close(ours[:count], theirs[:count], atol=1e-6, rtol=1e-5)
        assert torch.equal(our_rows.lengths, their_rows.lengths)


def test_each_distinct_text_is_computed_once_and_then_never_again(tmp_path: Path) -> None:
    strategy = strategies.load("last_block").strategy
    _, first, prefix = open_store(tmp_path, strategy, PARTS)
    assert (first.computed_tokens, first.reused_tokens) == (3 + 1 + 40 + 2, 0)
    assert all(parameter.is_meta for parameter in prefix.parameters()), "the prefix's memory is given back"
    _, second, _ = open_store(tmp_path, strategy, {"test": PARTS["test"], "train": PARTS["train"]})
    assert (second.computed_tokens, second.reused_tokens) == (0, 46)
    _, other_boundary, _ = open_store(tmp_path, strategies.load("last_two_blocks").strategy, PARTS)
    _, other_weights, _ = open_store(tmp_path, strategy, PARTS, seed=1)
    _, other_mask, _ = open_store(tmp_path, strategies.load("no_causal_mask").strategy, PARTS)
    assert min(store.computed_tokens for store in (other_boundary, other_weights, other_mask)) > 0


def test_a_longer_prefix_goes_on_from_the_features_of_a_shorter_one(tmp_path: Path) -> None:
    for name in ("last_two_blocks", "last_block", "head_only"):
        strategy = strategies.load(name).strategy
        going_on, store, _ = open_store(tmp_path / "shared", strategy, PARTS)
        anew, _, _ = open_store(tmp_path / name, strategy, PARTS)
        reused = 0 if name == "last_two_blocks" else 46
        assert (store.computed_tokens, store.reused_tokens) == (46, reused)
        for part in PARTS:
            numbers = np.arange(len(PARTS[part]))
            assert torch.equal(going_on[part].batch(numbers)[0], anew[part].batch(numbers)[0]), "the same bits"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_token_that_is_read_has_the_same_bits_whatever_is_stored(tmp_path: Path, precision: Precision) -> None:
    """The last block of head_only is computed at one token, also where another strategy has stored it at all."""
    strategy = strategies.load("head_only").strategy
    open_store(tmp_path / "shared", Strategy(trainable=("final_norm",)), PARTS, precision=precision)
    going_on, _, _ = open_store(tmp_path / "shared", strategy, PARTS, precision=precision)
    anew, _, _ = open_store(tmp_path / "anew", strategy, PARTS, precision=precision)
    numbers = np.arange(len(PARTS["train"]))
    assert torch.equal(going_on["train"].batch(numbers)[0], anew["train"].batch(numbers)[0])


def test_a_shorter_prefix_of_other_weights_or_another_mask_is_no_beginning(tmp_path: Path) -> None:
    head_only = strategies.load("head_only").strategy
    open_store(tmp_path, strategies.load("last_block").strategy, PARTS, seed=1)
    open_store(tmp_path, strategies.load("no_causal_mask").strategy, PARTS)
    open_store(tmp_path, strategies.load("last_block").strategy, {"train": PARTS["train"]})
    _, store, _ = open_store(tmp_path, head_only, PARTS)
    assert (store.computed_tokens, store.reused_tokens) == (46, 0)


def test_a_suite_does_short_prefixes_first(run_here: Callable) -> None:
    records = {
        record.strategy: record
        for record in run_here(strategy=["head_only", "full", "last_two_blocks"], training__epochs=0)
    }
    assert records["last_two_blocks"].prefix.reused_tokens == 0
    assert records["head_only"].prefix.reused_tokens == records["last_two_blocks"].prefix.computed_tokens > 0
    finished = sorted(records, key=lambda name: records[name].finished_at)
    assert finished == ["last_two_blocks", "head_only", "full"]


def test_head_only_stores_one_vector_a_text(tmp_path: Path) -> None:
    features, _, _ = open_store(tmp_path, strategies.load("head_only").strategy, PARTS)
    assert [path.stat().st_size for path in tmp_path.glob("*.features")] == [4 * 128 * 4]
    hidden, rows = features["train"].batch(np.array([3, 0]))
    assert hidden.shape == (2, 128)
    assert rows.lengths.tolist() == [1, 1]


def _add_dropout(prefix: Prefix) -> None:
    prefix.stages[1].mlp = torch.nn.Sequential(prefix.stages[1].mlp, torch.nn.Dropout(0.1))


class _Random(Stage):
    def forward(self, hidden: torch.Tensor, rows: object) -> torch.Tensor:
        return hidden + torch.rand_like(hidden)


class _Counting(Stage):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, hidden: torch.Tensor, rows: object) -> torch.Tensor:
        self.calls += 1
        return hidden


def _append(stage: torch.nn.Module) -> Callable[[Prefix], None]:
    def change(prefix: Prefix) -> None:
        prefix.stages.append(stage)
        prefix.names += ("appended",)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_add_dropout, "the prefix has dropout"),
        (_append(_Random()), "the prefix is not deterministic"),
        (_append(_Counting()), "it has a state"),
    ],
)
def test_features_that_would_be_wrong_are_refused_and_told(tmp_path: Path, change: Callable, told: str) -> None:
    features, store, prefix = open_store(tmp_path, Strategy(trainable=("block.-1",)), PARTS, change=change)
    assert told in store.not_stored
    assert features["train"].prefix is not None
    assert not any(parameter.is_meta for parameter in prefix.parameters())
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_what_is_not_cacheable_or_too_large_or_can_not_be_written_is_computed_each_time(tmp_path: Path) -> None:
    strategy = Strategy(trainable=("block.-1",))
    _, declared, _ = open_store(tmp_path, Strategy(trainable=("block.-1",), cacheable=False), PARTS)
    assert "not cacheable" in declared.not_stored
    _, limited, _ = open_store(tmp_path, strategy, PARTS, limit_bytes=1000)
    assert "features.limit_gigabytes" in limited.not_stored
    (tmp_path / "file").write_text("")
    _, unwritable, _ = open_store(tmp_path / "file" / "below", strategy, PARTS)
    assert "can't be written" in unwritable.not_stored


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    _, store, _ = open_store(tmp_path, Strategy(trainable=("block.-1",)), PARTS)
    assert "No space left on device" in store.not_stored
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_the_least_recently_used_features_make_room(tmp_path: Path) -> None:
    strategy = Strategy(trainable=("block.-1",))
    size = 46 * 128 * 4
    for seed in range(3):
        open_store(tmp_path, strategy, PARTS, seed=seed, limit_bytes=2 * size)
        _age(tmp_path)
        open_store(tmp_path, strategy, PARTS, seed=0, limit_bytes=2 * size)  # seed 0 stays in use
        _age(tmp_path)
    assert len(list(tmp_path.glob("*.features"))) == 2
    assert open_store(tmp_path, strategy, PARTS, seed=0)[1].computed_tokens == 0


def _age(folder: Path) -> None:
    """Make what is stored there a minute older."""
    for path in folder.glob("*.features"):
        modified = path.stat().st_mtime - 60
        os.utime(path, (modified, modified))


def test_room_is_made_before_it_is_needed_and_not_of_what_is_in_use(tmp_path: Path) -> None:
    strategy, size = Strategy(trainable=("block.-1",)), 46 * 128 * 4
    open_store(tmp_path, strategy, PARTS, seed=0)
    (used,) = tmp_path.glob("*.features")
    for name in ("of the dead", "of the living"):
        (tmp_path / f"{name}.partial").write_bytes(b"half")
    with FileLock(tmp_path / "of the living.features.lock"):
        with FileLock(f"{used}.lock"):
            open_store(tmp_path, strategy, PARTS, seed=1, limit_bytes=size)
        assert used.exists()
        assert [path.stem for path in tmp_path.glob("*.partial")] == ["of the living"]
        open_store(tmp_path, strategy, PARTS, seed=2, limit_bytes=size)
    assert len(list(tmp_path.glob("*.features"))) == 1


def test_a_strategy_that_shares_the_prefix_and_a_second_seed_compute_no_prefix_token(run_here: Callable) -> None:
    records = run_here(strategy=["last_block", "mean_pool", "first_token"], seed=[0, 1], training__epochs=0)
    computed = [record.prefix.computed_tokens for record in records]
    assert computed[0] > 0
    assert computed[1:] == [0] * 5
    assert {record.prefix.reused_tokens for record in records[1:]} == {computed[0]}
