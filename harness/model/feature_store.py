"""The store of prefix features: computed once for each distinct text, read by every run that shares the prefix.

It is one file for each content key, below CACHE/features: [tokens, hidden] in float32 (float64 where that is the
precision), the distinct rows by length. Its key is a hash of all that determines its bits: the prefix's tensors as they
are after adaptation, the rows, boundary, readout, attention, precision, the device's kind, this code and PyTorch's
version. It is written under another name and renamed when it is whole, behind a lock that the system drops when its
holder dies.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from harness.config import Precision
from harness.data.batches import Examples, batches_by_length, tokens_at_once
from harness.engine.world import World
from harness.measure.memory import return_freed_memory
from harness.model.features import Computed, Features, Stored, packed_features
from harness.model.split import Prefix

# The code that the bits depend on.
_CODE = (
    "feature_store.py",
    "features.py",
    "gpt2.py",
    "split.py",
    "adapters.py",
    "../engine/precision.py",
    "../data/batches.py",
)


@dataclass
class FeatureReport:
    """What became of the features. told: why they are not stored, where they are not.

    computed_tokens and reused_tokens count the tokens of distinct texts, on all ranks together.
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
        rows = _DistinctRows.of(examples, one_token=prefix.readout is not None)
        shape = (int(rows.feature_lengths.sum()), hidden)
        size = shape[0] * shape[1] * self.dtype.itemsize
        if size > self.limit_bytes:
            limit = f"{size / 1e9:.1f} GB is over the limit of {self.limit_bytes / 1e9:g} GB (features.limit_gigabytes)"
            return self.computed(prefix, examples, limit)
        tensors = _KNOWN_TENSORS.get(self.recipe) if self.recipe else None
        if tensors is None:
            self._load_once()
            tensors = _hash_tensors(prefix)
        path = self.folder / f"{_key(prefix, rows, tensors + self.code, self.precision, self.world.device)}.features"
        problem = self._fill(path, prefix, rows, size, tensors)
        if problem:
            return self.computed(prefix, examples, problem)
        if self.recipe:
            _KNOWN_TENSORS[self.recipe] = tensors
        prefix.to("meta")  # nothing needs its tensors any more
        return_freed_memory()
        store = np.memmap(path, self.dtype, "r", shape=shape)
        return {name: rows.stored(store, name, self.world.device) for name in examples}

    def computed(
        self, prefix: Prefix, examples: dict[str, Examples], told: str | None, width: int | None = None
    ) -> dict[str, Features]:
        """Features that are computed each time; `told` says why."""
        self._load_once()
        self.report.told = told
        return {name: Computed(prefix, part, self.world.device, width) for name, part in examples.items()}

    def _fill(self, path: Path, prefix: Prefix, rows: _DistinctRows, size: int, tensors: str) -> str | None:
        """Make sure that the file is there, whole; returns why it can't be."""
        tokens = int(rows.token_lengths.sum())
        lock = FileLock(f"{path}.lock")
        partial, problem = path.with_suffix(".partial"), None
        leads = self.world.local_rank == 0
        if leads:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                if path.exists():
                    os.utime(path)  # the least recently used go first
                else:
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
                problem = self._compute(partial, prefix, rows)
                if _hash_tensors(prefix) != tensors:
                    problem = "the prefix changed while it computed: it has a state"
            problem = next(filter(None, self.world.gather(problem)), None)
            if leads and not (problem or whole):
                partial.replace(path)
                _drop_oldest(self.folder, self.limit_bytes, keep=path)
            self.world.gather(None)
            self.report = FeatureReport(0, tokens) if whole else FeatureReport(tokens, 0)
            return problem
        finally:
            if lock.is_locked:
                partial.unlink(missing_ok=True)
                lock.release()

    def _compute(self, partial: Path, prefix: Prefix, rows: _DistinctRows) -> str | None:
        """Write this rank's share of the chunks; returns what went wrong."""
        # The same chunks at any number of ranks, so that the bits don't depend on it.
        chunks = batches_by_length(rows.token_lengths, tokens_at_once(self.world.device.type))
        mine = chunks[self.world.local_rank :: self.world.local_size]
        with partial.open("r+b") as file:
            for number, chunk in enumerate(mine):
                features = self._features(prefix, rows, chunk)
                # A prefix that draws random numbers gives itself away at the first chunk.
                if number == 0 and not torch.equal(features, self._features(prefix, rows, chunk)):
                    return "the prefix is not deterministic"
                try:
                    # Chunks are runs of rows that lie one after the other in the file.
                    content = features.cpu().numpy().astype(self.dtype, copy=False)
                    file.seek(int(rows.feature_starts[chunk[0]]) * content[0].nbytes)
                    file.write(content.data)
                except OSError as error:
                    return f"{partial.parent} can't be written: {error.strerror}"
        return None

    def _features(self, prefix: Prefix, rows: _DistinctRows, chunk: np.ndarray) -> Tensor:
        token_ids = np.concatenate([np.frombuffer(rows.rows[number], np.int32) for number in chunk])
        features, packed = packed_features(prefix, token_ids, rows.token_lengths[chunk], self.world.device)
        return features[: int(packed.lengths.sum())]  # without the filler


# Hashes of the tensors of prefixes that were loaded in this process, by recipe: a second run need not load them.
_KNOWN_TENSORS: dict[str, str] = {}


@dataclass(frozen=True)
class _DistinctRows:
    """The distinct token rows of all parts by length, whichever part they stand in.

    rows: their bytes (int32). numbers: for each part the distinct row of each example.
    """

    rows: list[bytes]
    numbers: dict[str, np.ndarray]
    token_lengths: np.ndarray
    feature_lengths: np.ndarray

    @classmethod
    def of(cls, examples: dict[str, Examples], one_token: bool) -> _DistinctRows:
        of_part = {name: _row_bytes(part) for name, part in examples.items()}
        rows = sorted({row for part in of_part.values() for row in part}, key=lambda row: (len(row), row))
        place = {row: number for number, row in enumerate(rows)}
        lengths = np.array([len(row) // 4 for row in rows])
        return cls(
            rows,
            {name: np.array([place[row] for row in part]) for name, part in of_part.items()},
            lengths,
            np.ones_like(lengths) if one_token else lengths,
        )

    @property
    def feature_starts(self) -> np.ndarray:
        return np.cumsum(self.feature_lengths) - self.feature_lengths

    def stored(self, store: np.ndarray, name: str, device: torch.device) -> Stored:
        numbers = self.numbers[name]
        return Stored(store, self.feature_starts[numbers], self.feature_lengths[numbers], device)


def _row_bytes(part: Examples) -> list[bytes]:
    content = part.token_ids.astype(np.int32).tobytes()
    return [content[4 * start : 4 * end] for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)]


def _hash_tensors(prefix: Prefix) -> str:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing leaves the interpreter's lock alone
        return hashlib.sha256(repr(list(pool.map(_hash_tensor, prefix.state_dict().items()))).encode()).hexdigest()


def _hash_tensor(entry: tuple[str, Tensor]) -> tuple[str, str, list[int], str]:
    name, tensor = entry
    content = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(content.data).hexdigest()


def _key(prefix: Prefix, rows: _DistinctRows, origin: str, precision: Precision, device: torch.device) -> str:
    code = hashlib.sha256()
    for source in _CODE:
        code.update((Path(__file__).parent / source).read_bytes())
    attention = [getattr(module, "causal", None) for module in prefix.modules()]
    parts: Iterable[object] = (
        origin,
        code.hexdigest(),
        torch.__version__,
        prefix.names,
        prefix.readout,
        [type(module).__qualname__ for module in prefix.modules()],
        attention,
        precision,
        device.type,
        hashlib.sha256(b"".join(rows.rows)).hexdigest(),
        hashlib.sha256(rows.token_lengths.tobytes()).hexdigest(),
    )
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()


def _reserve(path: Path, size: int) -> None:
    """Take the space now: a full disk is noticed here, and not while a mapped page is written."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _drop_oldest(folder: Path, limit_bytes: int, keep: Path) -> None:
    """Keep the folder below the limit: the least recently used go first. Whoever has them mapped keeps them."""
    found = []
    for file in folder.glob("*.features"):
        with suppress(FileNotFoundError):  # another process makes room, too
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    total = 0
    for _, size, file in sorted(found, reverse=True):
        total += size
        if total > limit_bytes and file != keep:
            file.unlink(missing_ok=True)
