"""Walks through the phases of a run: one typical pass of each, and how often it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from harness import kernels
from harness.config.schema import Precision
from harness.data.batching import batches_by_length, batches_in_order, tokens_at_once
from harness.data.encoding import Examples, RowRule, encode_split, longest_row
from harness.distributed.process_group import World
from harness.features.distinct import DistinctRows
from harness.features.features import Features, features_of
from harness.features.store import dtype_of
from harness.kernels.occurring_tokens import train_occurring_tokens
from harness.kernels.shared_beginnings import SharedBeginnings
from harness.model.backbone import Block
from harness.model.precision import parameter_dtype, store_frozen
from harness.model.split import Part, Prefix, Suffix
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy, split_without_tensors
from harness.planning.workspace import Workspace
from harness.prediction.work.passes import Held, Kind, Parameters, Pass, RunWork
from harness.prediction.work.rehearsal import Rehearsal, allocate
from harness.prediction.work.walk import Shapes
from harness.training.batches import TrainingBatches
from harness.training.engines.optimizer import trained_parameters
from harness.training.engines.protocol import Engine

T = TypeVar("T")
# Of each model on the same texts: the stages of prefixes whose features are there, and what they read.
ComputedFeatures = dict[tuple, set[tuple[int, str | None]]]
CPU = torch.device("cpu")
# A part with more blocks is walked with so many and with one more, which says what each more adds; unless it is small.
SAMPLED_BLOCKS, SMALL_PARAMETERS = 2, 5_000_000


@dataclass
class Texts:
    """The rows of runs, encoded once for those that make them alike."""

    workspace: Workspace
    _known: dict[tuple, dict[str, Examples]] = field(default_factory=dict)

    def of(self, planned: PlannedRun, strategy: ResolvedStrategy) -> dict[str, Examples]:
        model, config = self.workspace.model(planned.model.name), planned.config
        rule = RowRule.of(config.data, model.context - strategy.strategy().positions_before, strategy.pad_to)
        key = planned.model.name, planned.config.data, rule
        if key not in self._known:
            dataset, tokenizer = planned.dataset(self.workspace), self.workspace.tokenizer(planned.model.name)
            self._known[key] = encode_split(dataset.split, tokenizer, dataset.source.classes, rule)
        return self._known[key]


@dataclass
class RunWalker:
    """Walks the phases of one run. world_size: ranks. kind: of the device, "cpu" or "cuda", whose kernels and sizes of
    batches are used."""

    planned: PlannedRun
    strategy: ResolvedStrategy
    examples: dict[str, Examples]
    classes: int
    workspace: Workspace
    world_size: int
    kind: str

    def __post_init__(self) -> None:
        self._config, self._tokens = self.planned.config, tokens_at_once(self.kind)

    def work(self, computed: ComputedFeatures) -> RunWork:
        """computed: by runs before, to which this one's features are added."""
        prefix, work = self._parts()[0], self._without_features
        if not self._is_stored(prefix):
            return work
        features, stored_bytes = self._features(prefix, computed)
        prefix_bytes = work.prefix_bytes if features else 0
        return replace(work, features=features, stored_bytes=stored_bytes, prefix_bytes=prefix_bytes)

    @cached_property
    def _without_features(self) -> RunWork:
        begun = time.perf_counter()
        prefix, suffix = self._parts()
        building_seconds = time.perf_counter() - begun
        trained, in_all = _trained(suffix), _parameters(suffix)
        epochs = self.planned.training.epochs
        step, evaluate = self._pass("step", suffix), self._pass("evaluate", suffix)
        return RunWork(
            parameters=Parameters(trained, in_all - trained, _parameters(prefix)),
            features=None,
            step=replace(step, times=epochs * self._steps_of_epoch(), largest=self._largest_step),
            evaluate=replace(evaluate, times=self._evaluations, largest=self._largest_evaluation),
            held=self._held(),
            blocks=_blocks(suffix),
            stored_bytes=0,
            prefix_bytes=_stored_bytes(prefix, self._config.precision),
            building_seconds=building_seconds,
        )

    def _is_stored(self, prefix: Prefix) -> bool:
        return bool(prefix.stages) and prefix.facts.cacheable and not self._config.plain

    def _steps_of_epoch(self) -> int:
        texts = self._config.training.texts or len(self.examples["train"])
        return self.planned.training.steps_of_epoch(texts)

    def _parts(self) -> tuple[Prefix, Suffix]:
        """With shapes only, on the meta device."""
        model = self.workspace.model(self.planned.model.name)
        return split_without_tensors(self.strategy.strategy(), model, self.classes)

    def rehearse(self, kind: Kind, blocks: int, on: Rehearsal[T], done: int = 0) -> T:
        """What a pass with so many blocks takes. done: stages of the prefix that are left out."""
        match kind:
            case "step":
                return self._step(blocks, on)
            case "evaluate":
                return self._evaluate(blocks, on)
            case "features":
                return self._chunk(blocks, done, on)

    def _held(self) -> Held:
        suffix = self._parts()[1]
        self._leave_rows_out(suffix)
        return Held(_trained(suffix), _stored_bytes(suffix, self._config.precision))

    def _pass(self, kind: Kind, part: Part, done: int = 0) -> Pass:
        blocks = _blocks(part)
        sampled = blocks if _parameters(part) < SMALL_PARAMETERS else min(blocks, SAMPLED_BLOCKS)
        walk = sample = self.rehearse(kind, sampled, Shapes(), done)
        if blocks > sampled:
            walk = sample.extended(self.rehearse(kind, sampled + 1, Shapes(), done), by=blocks - sampled)
        return Pass(kind, walk, 1.0, sample, sampled, done)

    def _step(self, blocks: int, on: Rehearsal[T]) -> T:
        prefix, suffix = self._parts()
        engine = self._engine(suffix, blocks, on)
        features = self._fed(self.examples["train"], prefix, suffix, on)
        batches = TrainingBatches(
            features, self.examples["train"], self.planned.training, self._config.seed,
            World(0, self.world_size, CPU), hidden=suffix.width,
        )  # fmt: skip
        every = batches.of_epoch(0)
        sizes = [int(features.lengths[one[:: self.world_size]].sum()) for one in every]
        indices = _typical(every, sizes)
        self._largest_step = max(sizes) / int(features.lengths[indices[:: self.world_size]].sum())
        return on.of(lambda: engine.step(batches.local(indices), len(indices)))

    def _evaluate(self, blocks: int, on: Rehearsal[T]) -> T:
        prefix, suffix = self._parts()
        engine = self._engine(suffix, blocks, on)
        every: list[tuple[Features, np.ndarray]] = []
        for part in self.examples.values():
            features = self._fed(part, prefix, suffix, on)
            size, lengths = self._config.training.batch_size, features.lengths
            in_order = self._config.plain
            batches = batches_in_order(len(part), size) if in_order else batches_by_length(lengths, self._tokens)
            every += [(features, indices) for indices in batches]
        sizes = [int(features.lengths[indices].sum()) for features, indices in every]
        features, indices = _typical(every, sizes)
        self._largest_evaluation = max(sizes) / int(features.lengths[indices].sum())
        self._evaluations = sum(sizes) / int(features.lengths[indices].sum()) / self.world_size
        return on.of(lambda: engine.logits(*features.batch(indices)))

    def _engine(self, suffix: Suffix, blocks: int, on: Rehearsal) -> Engine:
        """Of the suffix with so many of its blocks."""
        _keep(suffix, blocks)
        allocate(suffix)
        suffix.recomputes_blocks = self._config.training.gradient_checkpointing
        self._optimize(suffix)
        self._leave_rows_out(suffix)
        return on.engine(suffix, self._config)

    def _leave_rows_out(self, suffix: Suffix) -> None:
        if not (self._config.plain or self.strategy.builds):
            train_occurring_tokens(suffix, self.examples)

    def _optimize(self, part: Part) -> None:
        """Kernels but for those that need the device."""
        if self._config.plain:
            return
        kernels.read_in_top_block(part)
        if self.kind == "cpu":
            kernels.attend_row_by_row(part)
        else:
            kernels.fuse(part)

    def _placed(self, prefix: Prefix, on: Rehearsal) -> Prefix:
        allocate(prefix)
        prefix.place(CPU, self._config.precision)
        self._optimize(prefix)
        on.fill(prefix)
        return prefix

    def _fed(self, part: Examples, prefix: Prefix, suffix: Suffix, on: Rehearsal) -> Features:
        """What the suffix is fed with: stored features, or what computes them."""
        if not self._is_stored(prefix):
            width = longest_row(self.examples) if self._config.plain else None
            placed = self._placed(prefix, on) if prefix.stages else prefix
            return Features.computed(placed, part, CPU, width)
        lengths = np.ones(len(part), dtype=np.int64) if prefix.facts.reads else part.lengths
        vector = on.tensor(1, suffix.width, dtype=parameter_dtype(self._config.precision))
        flat = vector.expand(int(lengths.sum()), suffix.width)  # a rehearsal has no memory for all features
        return Features(flat, np.cumsum(lengths) - lengths, lengths, CPU)

    def _features(self, prefix: Prefix, computed: ComputedFeatures) -> tuple[Pass | None, int]:
        """The passes of a prefix over distinct texts, and the bytes of what it gives. A longer prefix continues from
        the features of a shorter one."""
        rows = self._rows
        key = self.planned.model.name, self.planned.model.weights_sha256, rows.sha256, self._config.precision
        earlier, this = computed.setdefault(key, set()), (len(prefix.stages), prefix.facts.reads)
        if this in earlier:
            return None, 0
        longest = len(prefix.stages) - (1 if prefix.facts.reads else 0)
        done = max((stages for stages, reads in earlier if reads is None and stages <= longest), default=0)
        _drop_below(prefix, done)
        one = self._pass("features", prefix, done)
        earlier.add(this)
        _, times = self._typical_chunk(rows)
        element = dtype_of(self._config.precision).itemsize
        return replace(one, times=times), int(rows.feature_lengths.sum()) * self._parts()[1].width * element

    @cached_property
    def _rows(self) -> DistinctRows:
        return DistinctRows.of(self.examples, self._parts()[0].facts, self._tokens)

    def _typical_chunk(self, rows: DistinctRows) -> tuple[range, float]:
        """And how many of its size the rows make."""
        sizes = [int((rows.token_lengths[chunk] - rows.shared[chunk]).sum()) for chunk in rows.chunks]
        chunk = _typical(rows.chunks, sizes)
        return chunk, rows.computed_tokens / sizes[rows.chunks.index(chunk)]

    def _chunk(self, blocks: int, done: int, on: Rehearsal[T]) -> T:
        prefix, suffix = self._parts()
        rows = self._rows
        chunk, _ = self._typical_chunk(rows)
        _drop_below(prefix, done)
        _keep(prefix, blocks)
        self._placed(prefix, on)
        batch = SharedBeginnings.of(rows.token_lengths[chunk], rows.shared[chunk])
        count = int(rows.token_lengths[chunk].sum())
        if done:  # the features of a shorter prefix
            inputs = on.tensor(count, suffix.width, dtype=parameter_dtype(self._config.precision))
        else:
            inputs = torch.zeros(count, dtype=torch.int64)
        return on.of(lambda: features_of(prefix, batch.pack(inputs), batch))


def _keep(part: Part, blocks: int) -> None:
    """Leave out blocks in the middle, so that so many are left."""
    of_blocks = [number for number, stage in enumerate(part.stages) if isinstance(stage, Block)]
    dropped = set(of_blocks[1 : 1 + len(of_blocks) - blocks])
    kept = [number for number in range(len(part.stages)) if number not in dropped]
    part.names = tuple(part.names[number] for number in kept)
    part.stages = nn.ModuleList(part.stages[number] for number in kept)


def _drop_below(prefix: Prefix, stages: int) -> None:
    prefix.names = prefix.names[stages:]
    prefix.stages = nn.ModuleList(list(prefix.stages)[stages:])


def _parameters(part: Part) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _trained(suffix: Suffix) -> int:
    """How many parameters."""
    return sum(parameter.numel() for parameter in trained_parameters(suffix).values())


def _blocks(part: Part) -> int:
    return sum(isinstance(stage, Block) for stage in part.stages)


def _typical(items: Sequence[T], sizes: Sequence[int]) -> T:
    """The item whose size is nearest to the mean."""
    return items[int(np.abs(np.array(sizes) - np.mean(sizes)).argmin())]


def _stored_bytes(part: Part, precision: Precision) -> int:
    """Of frozen parameters, in the types in which they are stored."""
    store_frozen(part, precision)
    size = parameter_dtype(precision).itemsize
    frozen = [parameter for parameter in part.parameters() if not parameter.requires_grad]
    return sum(p.numel() * (2 if p.dtype == torch.bfloat16 else size) for p in frozen)
