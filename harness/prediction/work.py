"""What a run has to compute, phase by phase: walks of one typical pass each, and how often it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from harness import kernels
from harness.config.schema import OptimizerConfig, Precision, RunConfig
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
from harness.prediction.walk import Shapes, Walk
from harness.training.batches import TrainingBatches
from harness.training.engines.ddp import DDPEngine
from harness.training.engines.optimizer import MOMENTS, adamw, trained_parameters

T = TypeVar("T")
# Of each model on the same texts: the stages of prefixes whose features are there, and what they read.
ComputedFeatures = dict[tuple, set[tuple[int, str | None]]]
CPU = torch.device("cpu")
# A part with more blocks than this is walked with two and with three of them, which says what each more adds.
MOST_WALKED_BLOCKS = 3


@dataclass(frozen=True)
class Pass:
    """walk: of one. times: how often it is done, in parts where passes differ in size."""

    walk: Walk
    times: float


@dataclass(frozen=True)
class Parameters:
    """Counts. trained, frozen: of the suffix. prefix: all are frozen."""

    trained: int
    frozen: int
    prefix: int


@dataclass(frozen=True)
class RunWork:
    """features: of the prefix on distinct texts, once, for all ranks together; None where it is empty, runs in every
    pass, or an earlier run has computed them. step, evaluate: of one rank. trained_here: parameters that are trained,
    of a token embedding only the rows of tokens that occur. stored_bytes: of features that are written. frozen_bytes,
    prefix_bytes: of the frozen parameters of suffix and prefix, which is not loaded where an earlier run has computed
    its features. layout_seconds: of the host, for the batch of a step.
    """

    parameters: Parameters
    features: Pass | None
    step: Pass
    evaluate: Pass
    trained_here: int
    stored_bytes: int
    frozen_bytes: int
    prefix_bytes: int
    layout_seconds: float


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


class _Engine(DDPEngine):
    """Steps on tensors without content."""

    def __init__(self, shapes: Shapes, config: RunConfig) -> None:
        super().__init__(World(0, 1, CPU), config.precision, fused=not config.plain)
        self._shapes = shapes

    def prepare(self, suffix: Suffix, optimizer: OptimizerConfig) -> None:
        super().prepare(suffix, optimizer)
        self._shapes.fill(suffix)
        self._named = trained_parameters(suffix)
        self._optimizer = adamw(self._named, optimizer, self.fused, suffix.rate_factor)
        for parameter in self._named.values():  # as after a first step
            moments = {key: self._shapes.tensor(*parameter.shape, dtype=parameter.dtype) for key in MOMENTS}
            self._optimizer.state[parameter] = {"step": torch.zeros(()), **moments}


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
        prefix, suffix = self._parts()
        trained = sum(p.numel() for p in suffix.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in suffix.parameters()) - trained
        parameters = Parameters(trained, frozen, sum(p.numel() for p in prefix.parameters()))
        blocks = _blocks(suffix)
        step, evaluate = self._extrapolated(blocks, self._step), self._extrapolated(blocks, self._evaluate)
        prefix_bytes = _stored_bytes(prefix, self._config.precision)
        features, stored_bytes = self._features(prefix, computed) if self._is_stored(prefix) else (None, 0)
        return RunWork(
            parameters=parameters,
            features=features,
            step=Pass(step, self.planned.training.epochs * self._steps_of_epoch()),
            evaluate=Pass(evaluate, self._evaluations),
            trained_here=self._trained_here,
            stored_bytes=stored_bytes,
            frozen_bytes=_stored_bytes(suffix, self._config.precision),
            prefix_bytes=0 if self._is_stored(prefix) and features is None else prefix_bytes,
            layout_seconds=self._layout_seconds,
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

    def _extrapolated(self, blocks: int, walked: Callable[[int], Walk]) -> Walk:
        """walked: with so many blocks at most."""
        if blocks <= MOST_WALKED_BLOCKS:
            return walked(blocks)
        return walked(2).extended(walked(3), by=blocks - 2)

    def _step(self, blocks: int) -> Walk:
        shapes, (prefix, suffix) = Shapes(), self._parts()
        engine = self._engine(suffix, blocks, shapes)
        features = self._fed(self.examples["train"], prefix, suffix, shapes)
        batches = TrainingBatches(
            features, self.examples["train"], self.planned.training, self._config.seed,
            World(0, self.world_size, CPU), hidden=suffix.width,
        )  # fmt: skip
        every = batches.of_epoch(0)
        indices = _typical(every, [int(features.lengths[one[:: self.world_size]].sum()) for one in every])
        begun = time.perf_counter()
        local = batches.local(indices)
        self._layout_seconds = time.perf_counter() - begun
        return shapes.walk(lambda: engine.step(local, len(indices)))

    def _evaluate(self, blocks: int) -> Walk:
        shapes, (prefix, suffix) = Shapes(), self._parts()
        engine = self._engine(suffix, blocks, shapes)
        every: list[tuple[Features, np.ndarray]] = []
        for part in self.examples.values():
            features = self._fed(part, prefix, suffix, shapes)
            size, lengths = self._config.training.batch_size, features.lengths
            in_order = self._config.plain
            batches = batches_in_order(len(part), size) if in_order else batches_by_length(lengths, self._tokens)
            every += [(features, indices) for indices in batches]
        sizes = [int(features.lengths[indices].sum()) for features, indices in every]
        features, indices = _typical(every, sizes)
        self._evaluations = sum(sizes) / int(features.lengths[indices].sum()) / self.world_size
        return shapes.walk(lambda: engine.logits(*features.batch(indices)))

    def _engine(self, suffix: Suffix, blocks: int, shapes: Shapes) -> _Engine:
        """Of the suffix with so many of its blocks."""
        suffix.to_empty(device=CPU)  # memory that nobody touches takes none
        suffix.recomputes_blocks = self._config.training.gradient_checkpointing
        self._optimize(suffix)
        if not (self._config.plain or self.strategy.builds):
            train_occurring_tokens(suffix, self.examples)
        self._trained_here = sum(p.numel() for p in suffix.parameters() if p.requires_grad)
        _keep(suffix, blocks)
        engine = _Engine(shapes, self._config)
        engine.prepare(suffix, self._config.optimizer)
        return engine

    def _optimize(self, part: Part) -> None:
        """Kernels but for those that need the device."""
        if self._config.plain:
            return
        kernels.read_in_top_block(part)
        if self.kind == "cpu":
            kernels.attend_row_by_row(part)
        else:
            kernels.fuse(part)

    def _placed(self, prefix: Prefix, shapes: Shapes) -> Prefix:
        prefix.to_empty(device=CPU)
        prefix.place(CPU, self._config.precision)
        self._optimize(prefix)
        shapes.fill(prefix)
        return prefix

    def _fed(self, part: Examples, prefix: Prefix, suffix: Suffix, shapes: Shapes) -> Features:
        """What the suffix is fed with: stored features, or what computes them."""
        if not self._is_stored(prefix):
            width = longest_row(self.examples) if self._config.plain else None
            placed = self._placed(prefix, shapes) if prefix.stages else prefix
            return Features.computed(placed, part, CPU, width)
        lengths = np.ones(len(part), dtype=np.int64) if prefix.facts.reads else part.lengths
        flat = shapes.tensor(int(lengths.sum()), suffix.width, dtype=parameter_dtype(self._config.precision))
        return Features(flat, np.cumsum(lengths) - lengths, lengths, CPU)

    def _features(self, prefix: Prefix, computed: ComputedFeatures) -> tuple[Pass | None, int]:
        """The passes of a prefix over distinct texts, and the bytes of what it gives. A longer prefix continues from
        the features of a shorter one."""
        rows = DistinctRows.of(self.examples, prefix.facts, self._tokens)
        key = self.planned.model.name, self.planned.model.weights_sha256, rows.sha256, self._config.precision
        earlier, this = computed.setdefault(key, set()), (len(prefix.stages), prefix.facts.reads)
        if this in earlier:
            return None, 0
        longest = len(prefix.stages) - (1 if prefix.facts.reads else 0)
        done = max((stages for stages, reads in earlier if reads is None and stages <= longest), default=0)
        earlier.add(this)
        _drop_below(prefix, done)
        sizes = [int((rows.token_lengths[chunk] - rows.shared[chunk]).sum()) for chunk in rows.chunks]
        chunk = _typical(rows.chunks, sizes)
        walk = self._extrapolated(_blocks(prefix), lambda blocks: self._chunk(rows, chunk, done, blocks))
        times = rows.computed_tokens / sizes[rows.chunks.index(chunk)]
        element = dtype_of(self._config.precision).itemsize
        return Pass(walk, times), int(rows.feature_lengths.sum()) * self._parts()[1].width * element

    def _chunk(self, rows: DistinctRows, chunk: range, done: int, blocks: int) -> Walk:
        shapes, (prefix, suffix) = Shapes(), self._parts()
        _drop_below(prefix, done)
        self._placed(prefix, shapes)
        _keep(prefix, blocks)
        batch = SharedBeginnings.of(rows.token_lengths[chunk], rows.shared[chunk])
        count = int(rows.token_lengths[chunk].sum())
        tokens: Tensor = shapes.tensor(count, suffix.width) if done else torch.zeros(count, dtype=torch.int64)
        return shapes.walk(lambda: features_of(prefix, batch.pack(tokens), batch))


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
