"""The store of prefix features: computed once for each distinct text, read by every run that shares the prefix.

One file for each content key lies below CACHE/features: [tokens, hidden] in float32 (float64 where that is the
precision), one distinct row after the other. It is written under another name and renamed when it is complete, behind a
lock that the system drops when its holder dies. Where the features of a shorter prefix of the same model are stored, a
longer one continues from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from harness.config.schema import Precision
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.disk import make_room, publish, reserve
from harness.features.distinct import DistinctRows
from harness.features.features import Features, features_of
from harness.features.key import FeatureKeys, hash_stages
from harness.features.loader import PrefixLoader
from harness.features.residence import resident
from harness.features.token_budget import TokenBudget
from harness.kernels.shared_beginnings import SharedBeginnings
from harness.model.backbone import Block
from harness.model.split import Prefix


@dataclass(frozen=True)
class FeatureReport:
    """What became of the features. not_stored: the reason, where they are not.

    computed_tokens and reused_tokens count the tokens of distinct texts, shared beginnings once, on all ranks together:
    in both where the prefix continued from the stored features of a shorter one.
    """

    computed_tokens: int = 0
    reused_tokens: int = 0
    not_stored: str | None = None

    def followed_by(self, other: FeatureReport) -> FeatureReport:
        """With the tokens of both. What is not stored is this one's alone: the other's features are read once."""
        return FeatureReport(
            self.computed_tokens + other.computed_tokens, self.reused_tokens + other.reused_tokens, self.not_stored
        )


OpenedFeatures = tuple[dict[str, Features], FeatureReport]


@dataclass(frozen=True)
class FeatureStore:
    """Opens, fills and limits the store. Every rank must call it.

    harness_code: hash of the code that computes features.

    known_tensors: hashes of the tensors of prefixes that this process has loaded, by what identifies them before they
    are loaded: a second run need not load them.

    warn: is told where memory runs out and chunks are computed in parts.
    """

    folder: Path
    limit_bytes: int
    world: World
    harness_code: str = ""
    known_tensors: dict[str, list[str]] = field(default_factory=dict)
    warn: Callable[[str], None] = lambda text: None

    def open(
        self, loader: PrefixLoader, examples: dict[str, Examples], hidden: int, recipe: str | None, code: str = ""
    ) -> OpenedFeatures:
        """Features of every part of the data: stored where that is possible and right, else computed each time.

        The prefix keeps its tensors only where they are needed again.
        recipe: identifies the prefix's tensors before they are loaded; None where third-party code made them.
        code: hash of such code, else empty.
        """
        prefix = loader.prefix
        if not prefix.stages:
            return computed(loader, examples, None)
        if reason := _not_storable(prefix):
            return computed(loader, examples, reason)
        budget = TokenBudget.of(self.world, hidden, loader.precision, self.warn)
        rows = DistinctRows.of(examples, prefix.facts, budget.tokens)
        file = FeatureFile.of(self.folder, loader, rows, hidden, (code, self.harness_code))
        if file.size > self.limit_bytes:
            limit = f"{file.size / 1e9:.1f} GB is over the limit of {self.limit_bytes / 1e9:g} GB"
            return computed(loader, examples, f"{limit} (features.limit_gigabytes)")
        tensors = self.known_tensors.get(recipe) if recipe else None
        if tensors is None:
            tensors = hash_stages(loader.load())
        filled = self._fill(file, loader, tensors, budget)
        if isinstance(filled, str):
            return computed(loader, examples, filled)
        store, report = filled
        if recipe:
            self.known_tensors[recipe] = tensors
        loader.release()
        flat = resident(torch.from_numpy(store), self.world.device)
        return {
            name: Features(flat, rows.feature_starts[indices], rows.feature_lengths[indices], self.world.device)
            for name, indices in rows.indices.items()
        }, report

    def _fill(
        self, file: FeatureFile, loader: PrefixLoader, tensors: list[str], budget: TokenBudget
    ) -> tuple[np.ndarray, FeatureReport] | str:
        """Make sure that the complete file is there; returns its content, or the reason why it can't be there."""
        path = file.path(len(loader.prefix.stages), tensors)
        lock, partial = FileLock(f"{path}.lock"), path.with_suffix(".partial")
        is_leader, problem, done = self.world.local_rank == 0, None, 0
        try:
            if is_leader:
                problem = self._prepare(path, partial, lock, file.size)
            # What the leader of this machine found; every rank of every machine takes part in every exchange.
            found = self.world.gather((problem, is_leader and path.exists()))
            problem = next((reason for reason, _ in found if reason), None)
            _, is_complete = found[self.world.rank - self.world.local_rank]
            if not (problem or is_complete):
                done, inputs = file.shorter(loader.load(), tensors)
                problem = self._compute(partial, loader.prefix, file, done, inputs, budget)
                if hash_stages(loader.prefix) != tensors:
                    problem = "the prefix changed while it computed: it has a state"
            problem = self.world.first(problem)
            if is_leader and not (problem or is_complete):
                try:
                    publish(partial, path)
                except OSError as error:
                    problem = _unwritable(self.folder, error)
            problem = self.world.first(problem)
            if problem:
                return problem
            store = np.memmap(path, file.dtype, "c", shape=file.shape)  # as PyTorch wants it; nobody writes
            self.world.gather(None)  # until then the leader's lock keeps the file from those who make room
            tokens = file.rows.computed_tokens
            report = FeatureReport(0, tokens) if is_complete else FeatureReport(tokens, tokens if done else 0)
            return store, report
        finally:
            if lock.is_locked:
                partial.unlink(missing_ok=True)
                lock.release()

    def _prepare(self, path: Path, partial: Path, lock: FileLock, size: int) -> str | None:
        """Lock the file, and reserve its space where it is not there; returns what went wrong."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            if path.exists():
                os.utime(path)  # the least recently used go first
            else:
                make_room(self.folder, self.limit_bytes - size)
                reserve(partial, size)
        except OSError as error:
            return _unwritable(self.folder, error)
        return None

    def _compute(
        self,
        partial: Path,
        prefix: Prefix,
        file: FeatureFile,
        done: int,
        inputs: np.ndarray,
        budget: TokenBudget,
    ) -> str | None:
        """Write this rank's slice of the chunks; returns what went wrong.

        inputs: the output of the lowest `done` stages for the rows, one after the other.
        """
        # The same chunks at any number of ranks, so that the bits don't depend on it.
        local = file.rows.chunks[self.world.local_rank :: self.world.local_size]
        if local:  # a prefix that draws random numbers shows at one row
            row = local[0][:1]
            if not torch.equal(*(self._features(prefix, file.rows, row, done, inputs) for _ in range(2))):
                return "the prefix is not deterministic"
        with partial.open("r+b") as output:
            parts = budget.in_parts(local, lambda rows: self._features(prefix, file.rows, rows, done, inputs))
            for rows, features in parts:
                try:
                    content = features.cpu().numpy().astype(file.dtype, copy=False)
                    output.seek(int(file.rows.feature_starts[rows.start]) * content[0].nbytes)
                    output.write(content.data)
                except OSError as error:
                    return _unwritable(partial.parent, error)
        return None

    def _features(self, prefix: Prefix, rows: DistinctRows, chunk: range, done: int, inputs: np.ndarray) -> Tensor:
        """Of a chunk, or of a part of one: its first row is computed in full."""
        lengths, shared = rows.token_lengths[chunk], rows.shared[chunk]
        shared[0] = 0
        start = int(rows.token_starts[chunk.start])
        of_chunk = inputs[start : start + int(lengths.sum())]
        # A copy, since the inputs are not to be written to.
        tokens = torch.from_numpy(np.array(of_chunk, dtype=None if done else np.int64)).to(self.world.device)
        batch = SharedBeginnings.of(lengths, shared).to(self.world.device)
        features, of_rows = features_of(prefix, batch.pack(tokens), batch, done)
        return of_rows.unpack(features)


@dataclass(frozen=True)
class FeatureFile:
    """The file of the features of a prefix on distinct rows. shape: [feature vectors, hidden]."""

    folder: Path
    keys: FeatureKeys
    rows: DistinctRows
    shape: tuple[int, int]
    dtype: np.dtype

    @classmethod
    def of(
        cls, folder: Path, loader: PrefixLoader, rows: DistinctRows, hidden: int, code: tuple[str, str]
    ) -> FeatureFile:
        keys = FeatureKeys.of(loader.prefix, rows.sha256, loader.precision, loader.device, code)
        return cls(folder, keys, rows, (int(rows.feature_lengths.sum()), hidden), dtype_of(loader.precision))

    @property
    def size(self) -> int:
        """In bytes."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def path(self, stages: int, tensors: list[str]) -> Path:
        return self.folder / f"{self.keys.key(stages, tensors)}.features"

    def shorter(self, prefix: Prefix, tensors: list[str]) -> tuple[int, np.ndarray]:
        """The longest shorter prefix whose features are stored: its number of stages, and its features.

        Else 0 stages, whose features are the token ids. A prefix that reads one token does so from its top block on,
        which it therefore always computes itself: whatever is stored, its bits are the same.
        """
        longest = len(prefix.stages) - 1
        if prefix.facts.reads in ("first", "last"):
            longest = max(number for number, stage in enumerate(prefix.stages) if isinstance(stage, Block))
        for stages in range(longest, 1, -1):
            path = self.path(stages, tensors)
            if path.exists():
                with suppress(FileNotFoundError):  # another process made room just now
                    shape = (int(self.rows.token_lengths.sum()), self.shape[1])
                    store = np.memmap(path, self.dtype, "r", shape=shape)
                    os.utime(path)
                    return stages, store
        return 0, np.frombuffer(b"".join(self.rows.rows), np.int32)


def computed(
    loader: PrefixLoader, examples: dict[str, Examples], reason: str | None, width: int | None = None
) -> OpenedFeatures:
    """Features that are computed each time, for `reason`; padded to `width` where that is set."""
    prefix = loader.load()
    features: dict[str, Features] = {
        name: Features.computed(prefix, part, loader.device, width) for name, part in examples.items()
    }
    return features, FeatureReport(not_stored=reason)


def dtype_of(precision: Precision) -> np.dtype:
    return np.dtype(np.float64 if precision == "fp64" else np.float32)


def _not_storable(prefix: Prefix) -> str | None:
    if not prefix.facts.cacheable:
        return "the strategy says that its prefix is not cacheable"
    if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in prefix.modules()):
        return "the prefix has dropout"
    return None


def _unwritable(folder: Path, error: OSError) -> str:
    return f"{folder} can't be written: {error.strerror}"
