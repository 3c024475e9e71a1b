"""The store of prefix features: computed once for each distinct text, read by every run that shares the prefix.

It is one file for each content key, below CACHE/features: [tokens, hidden] in float32 (float64 where that is the
precision), one distinct row after the other. Its key is a hash of all that determines its bits: the prefix's tensors as
they are after adaptation, the rows, boundary, readout, attention, precision, the device's kind, this code and PyTorch's
version. It is written under another name and renamed when it is whole, behind a lock that the system drops when its
holder dies. Where the features of a shorter prefix of the same model are stored, a longer one goes on from them.
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
from harness.data.batching import tokens_at_once
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.distinct import DistinctRows
from harness.features.features import Computed, Features, Stored, features_of
from harness.features.key import feature_key, hash_stages
from harness.measure.memory import return_freed_memory
from harness.model.backbone import Block
from harness.model.packing import Rows
from harness.model.split import Prefix


@dataclass
class FeatureReport:
    """What became of the features. told: why they are not stored, where they are not.

    computed_tokens and reused_tokens count the tokens of distinct texts, what these share from the beginning once, on
    all ranks together: in both where the prefix went on from the stored features of a shorter one.
    """

    computed_tokens: int = 0
    reused_tokens: int = 0
    told: str | None = None


@dataclass
class FeatureStore:
    """Opens, fills and limits the store.

    recipe: identifies the prefix's tensors before they are loaded; None where code of a third party made them.
    code: hash of such code, which the key then depends on; else empty.
    load: fills and places the prefix's stages, which may be on the meta device until then.
    """

    folder: Path
    limit_bytes: int
    world: World
    precision: Precision
    recipe: str | None
    code: str
    load: Callable[[], None]
    report: FeatureReport = field(default_factory=FeatureReport)
    _loaded: bool = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64 if self.precision == "fp64" else np.float32)

    def _load_once(self) -> None:
        if not self._loaded:
            self.load()
            self._loaded = True

    def open(self, prefix: Prefix, examples: dict[str, Examples], hidden: int) -> dict[str, Features]:
        """Features of every part: stored where that is possible and right, else computed each time.

        After it the prefix holds tensors only where they are needed again. Every rank must call it.
        """
        if not prefix.stages:
            return self.computed(prefix, examples, None)
        if not prefix.cacheable:
            return self.computed(prefix, examples, "the strategy says that its prefix is not cacheable")
        if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in prefix.modules()):
            return self.computed(prefix, examples, "the prefix has dropout")
        at_once = tokens_at_once(self.world.device.type)
        rows = DistinctRows.of(examples, prefix.readout is not None, prefix.causal, at_once)
        shape = (int(rows.feature_lengths.sum()), hidden)
        size = shape[0] * shape[1] * self.dtype.itemsize
        if size > self.limit_bytes:
            limit = f"{size / 1e9:.1f} GB is over the limit of {self.limit_bytes / 1e9:g} GB (features.limit_gigabytes)"
            return self.computed(prefix, examples, limit)
        tensors = _KNOWN_TENSORS.get(self.recipe) if self.recipe else None
        if tensors is None:
            self._load_once()
            tensors = hash_stages(prefix)
        path = self._path(prefix, len(prefix.stages), tensors, rows)
        store = self._fill(path, prefix, rows, shape, tensors)
        if isinstance(store, str):
            return self.computed(prefix, examples, store)
        if self.recipe:
            _KNOWN_TENSORS[self.recipe] = tensors
        prefix.release()
        return_freed_memory()
        return {
            name: Stored(store, rows.feature_starts[numbers], rows.feature_lengths[numbers], self.world.device)
            for name, numbers in rows.numbers.items()
        }

    def _path(self, prefix: Prefix, stages: int, tensors: list[str], rows: DistinctRows) -> Path:
        key = feature_key(prefix, stages, tensors, self.code, rows.sha256, self.precision, self.world.device)
        return self.folder / f"{key}.features"

    def _shorter(self, prefix: Prefix, tensors: list[str], rows: DistinctRows, hidden: int) -> tuple[int, np.ndarray]:
        """The longest shorter prefix whose features are stored: its number of stages, and its features.

        Else 0 stages, whose features are the token ids. A prefix that reads one token does so from its top block on,
        which is therefore always its own work: whatever is stored, its bits are the same.
        """
        longest = len(prefix.stages) - 1
        if prefix.readout in ("first", "last"):
            longest = max(number for number, stage in enumerate(prefix.stages) if isinstance(stage, Block))
        for stages in range(longest, 1, -1):
            path = self._path(prefix, stages, tensors, rows)
            if path.exists():
                with suppress(FileNotFoundError):  # another process made room just now
                    store = np.memmap(path, self.dtype, "r", shape=(int(rows.token_lengths.sum()), hidden))
                    os.utime(path)
                    return stages, store
        return 0, np.frombuffer(b"".join(rows.rows), np.int32)

    def computed(
        self, prefix: Prefix, examples: dict[str, Examples], told: str | None, width: int | None = None
    ) -> dict[str, Features]:
        """Features that are computed each time; `told` says why."""
        self._load_once()
        self.report.told = told
        return {name: Computed(prefix, part, self.world.device, width) for name, part in examples.items()}

    def _fill(
        self, path: Path, prefix: Prefix, rows: DistinctRows, shape: tuple[int, int], tensors: list[str]
    ) -> np.ndarray | str:
        """Make sure that the file is there, whole; returns what is in it, or why it can't be there."""
        size = shape[0] * shape[1] * self.dtype.itemsize
        lock = FileLock(f"{path}.lock")
        partial, problem, done = path.with_suffix(".partial"), None, 0
        leads = self.world.local_rank == 0
        if leads:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                if path.exists():
                    os.utime(path)  # the least recently used go first
                else:
                    _make_room(self.folder, self.limit_bytes - size)
                    _reserve(partial, size)
            except OSError as error:
                problem = f"{self.folder} can't be written: {error.strerror}"
        try:
            # What the leader of this machine found; every rank of every machine takes part in every exchange.
            found = self.world.gather((problem, leads and path.exists()))
            problem = next((told for told, _ in found if told), None)
            _, whole = found[self.world.rank - self.world.local_rank]
            if not (problem or whole):
                self._load_once()
                done, inputs = self._shorter(prefix, tensors, rows, shape[1])
                problem = self._compute(partial, prefix, rows, done, inputs)
                if hash_stages(prefix) != tensors:
                    problem = "the prefix changed while it computed: it has a state"
            problem = next(filter(None, self.world.gather(problem)), None)
            if leads and not (problem or whole):
                try:
                    _publish(partial, path)
                except OSError as error:
                    problem = f"{self.folder} can't be written: {error.strerror}"
            problem = next(filter(None, self.world.gather(problem)), None)
            store = problem or np.memmap(path, self.dtype, "r", shape=shape)
            self.world.gather(None)  # until then the leader's lock keeps the file from those who make room
            tokens = rows.computed_tokens
            self.report = FeatureReport(0, tokens) if whole else FeatureReport(tokens, tokens if done else 0)
            return store
        finally:
            if lock.is_locked:
                partial.unlink(missing_ok=True)
                lock.release()

    def _compute(self, partial: Path, prefix: Prefix, rows: DistinctRows, done: int, inputs: np.ndarray) -> str | None:
        """Write this rank's share of the chunks; returns what went wrong.

        inputs: what the lowest `done` stages made of the rows, one after the other.
        """
        # The same chunks at any number of ranks, so that the bits don't depend on it.
        mine = rows.chunks[self.world.local_rank :: self.world.local_size]
        if mine:  # a prefix that draws random numbers gives itself away at one row
            row = slice(mine[0].start, mine[0].start + 1)
            if not torch.equal(*(self._features(prefix, rows, row, done, inputs) for _ in range(2))):
                return "the prefix is not deterministic"
        with partial.open("r+b") as file:
            for chunk in mine:
                features = self._features(prefix, rows, chunk, done, inputs)
                try:
                    content = features.cpu().numpy().astype(self.dtype, copy=False)
                    file.seek(int(rows.feature_starts[chunk.start]) * content[0].nbytes)
                    file.write(content.data)
                except OSError as error:
                    return f"{partial.parent} can't be written: {error.strerror}"
        return None

    def _features(self, prefix: Prefix, rows: DistinctRows, chunk: slice, done: int, inputs: np.ndarray) -> Tensor:
        lengths = rows.token_lengths[chunk]
        start = int(rows.token_starts[chunk.start])
        sharing = Rows.sharing(lengths, rows.shared[chunk])
        features, of_rows = features_of(
            prefix, inputs[start : start + int(lengths.sum())], sharing, self.world.device, done
        )
        return of_rows.unpack(features)


# Hashes of the tensors of prefixes that were loaded in this process, by recipe: a second run need not load them.
_KNOWN_TENSORS: dict[str, list[str]] = {}


def _reserve(path: Path, size: int) -> None:
    """Take the space now: a full disk is noticed here, and not while a mapped page is written."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _publish(partial: Path, path: Path) -> None:
    """Give a file that is whole its name, once it is on the disk: a machine that goes down must not leave zeros."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _make_room(folder: Path, limit_bytes: int) -> None:
    """Bring the folder below the limit: what killed runs left half written goes, then what was used least recently.

    What another process is about to write or to map stays; whoever has a file mapped keeps it.
    """
    for partial in folder.glob("*.partial"):
        _remove_if_free(partial)
    found = []
    for file in folder.glob("*.features"):
        with suppress(FileNotFoundError):  # another process makes room, too
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    total = 0
    for _, size, file in sorted(found, reverse=True):
        total += size
        if total > limit_bytes:
            _remove_if_free(file)


def _remove_if_free(file: Path) -> None:
    with suppress(OSError), FileLock(f"{file.with_suffix('.features')}.lock", timeout=0):  # held, or another user's
        file.unlink(missing_ok=True)
