"""How much a pass without gradients takes at once, and what happens where that is too much.

Memory that runs out is simulated: a pass over more tokens than a limit raises what PyTorch raises.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import strategies
from harness.config.schema import Precision
from harness.distributed.process_group import World
from harness.features import residence, token_budget
from harness.features.features import Features
from harness.features.language_model import LanguageModel
from harness.features.loader import PrefixLoader
from harness.features.residence import resident
from harness.features.store import FeatureStore
from harness.features.token_budget import TokenBudget, affordable_tokens, bytes_per_token
from harness.model.backbone import Stage
from harness.model.gpt2 import GPT2Block
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.model.split import Prefix, PrefixFacts, Suffix, split
from harness.training.evaluation import predict
from tests.features.test_features import PARTS, examples_of, open_store

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ALONE = World(0, 1, CPU)
OUT_OF_MEMORY = {
    "a GPU": torch.OutOfMemoryError("CUDA out of memory"),
    "a CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
}
# 60 rows that begin alike and differ in their length and end, 2 to 31 tokens.
ROWS = examples_of([[*range(1, 1 + number % 30), 600 + number % 7, 300 + number] for number in range(60)])


class _Limited(Stage):
    """In place of the embeddings: raises where a pass has more tokens than memory has room for."""

    def __init__(self, stage: Stage, most_tokens: int, problem: Exception) -> None:
        super().__init__()
        self.stage, self.most_tokens, self.problem = stage, most_tokens, problem
        self.largest = 0

    def forward(self, token_ids: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        if len(token_ids) > self.most_tokens:
            raise self.problem
        self.largest = max(self.largest, len(token_ids))
        return self.stage(token_ids, batch)


def _limited(part: Prefix | Suffix, most_tokens: int, problem: Exception) -> _Limited:
    stage = part.stages[0]
    assert isinstance(stage, Stage)
    limited = _Limited(stage, most_tokens, problem)
    part.stages[0] = limited
    return limited


class _Scorer:
    def __init__(self, suffix: Suffix) -> None:
        self.suffix = suffix

    @torch.no_grad()
    def logits(self, features: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        return self.suffix.eval()(features, batch)


def _suffix() -> Suffix:
    torch.manual_seed(0)
    _, suffix = split(filled_backbone("mini", RandomWeights("gpt2", 0)), strategies.load("full").strategy, 2)
    return suffix


@pytest.mark.parametrize("problem", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_logits_are_the_same_where_memory_is_short(problem: Exception) -> None:
    features, suffix, told = Features.computed(Prefix({}, _FACTS), ROWS, CPU), _suffix(), []
    expected = predict(_Scorer(suffix), features, ALONE)
    limited = _limited(suffix, 192, problem)
    budget = TokenBudget(2_048, CPU, told.append)
    found = predict(_Scorer(suffix), features, ALONE, budget=budget)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 96 < limited.largest <= 192
    assert len(told) == 1
    assert "out of memory at a batch of 60 rows" in told[0]
    assert budget.halvings == 4, "3 rows of 31 tokens fit, 7 do not"
    predict(_Scorer(suffix), features, ALONE, budget=budget)
    assert (len(told), budget.halvings) == (1, 4), "later batches of the phase are cut before they fail"


_FACTS = PrefixFacts("embeddings", None, cacheable=True, causal=True)


def test_a_row_that_does_not_fit_is_out_of_memory() -> None:
    suffix = _suffix()
    _limited(suffix, 31, OUT_OF_MEMORY["a GPU"])  # a row takes 32, filler included
    with pytest.raises(torch.OutOfMemoryError):
        predict(_Scorer(suffix), Features.computed(Prefix({}, _FACTS), ROWS, CPU), ALONE)


def test_another_error_is_no_reason_to_compute_less() -> None:
    suffix, told = _suffix(), []
    _limited(suffix, 192, RuntimeError("shapes do not match"))
    features = Features.computed(Prefix({}, _FACTS), ROWS, CPU)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict(_Scorer(suffix), features, ALONE, budget=TokenBudget(2_048, CPU, told.append))
    assert told == []


@pytest.mark.parametrize("problem", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
@pytest.mark.parametrize("name", ["last_block", "head_only", "no_causal_mask"])
def test_stored_features_are_the_same_where_memory_is_short(tmp_path: Path, name: str, problem: Exception) -> None:
    """Also those of rows that begin like one of the other half."""
    strategy, parts, told = strategies.load(name).strategy, {"train": ROWS}, []
    expected, _, _ = open_store(tmp_path / "ample", strategy, parts)
    backbone = filled_backbone("mini", RandomWeights("gpt2", 0))
    prefix, _ = split(backbone, strategy, classes=2)
    limited = _limited(prefix, 96, problem)
    store = FeatureStore(tmp_path / "short", 10**9, ALONE, warn=told.append)
    found, report = store.open(PrefixLoader(prefix, None, CPU, "fp32"), parts, backbone.hidden, recipe=None)
    assert report.not_stored is None
    torch.testing.assert_close(found["train"].flat, expected["train"].flat, atol=1e-5, rtol=1e-5)
    assert 48 < limited.largest <= 96
    assert len(told) == 1


def test_features_of_a_row_that_does_not_fit_are_out_of_memory(tmp_path: Path) -> None:
    def limit(prefix: Prefix) -> None:
        _limited(prefix, 31, OUT_OF_MEMORY["a GPU"])

    with pytest.raises(torch.OutOfMemoryError):
        open_store(tmp_path, strategies.load("last_block").strategy, PARTS, change=limit)


def test_zero_shot_answers_the_same_where_memory_is_short() -> None:
    backbone, told = filled_backbone("mini", RandomWeights("gpt2", 0)), []
    stages = Prefix(backbone.stages(), PrefixFacts("output", None, cacheable=False, causal=True))
    stages.place(CPU, "fp32")
    model = LanguageModel(backbone, stages, CPU, TokenBudget(2_048, CPU, told.append))
    prompts, answers = [list(range(1, length)) for length in range(3, 60)], [(5,), (6, 7), (6, 8)]
    expected = model.likelihoods(prompts, answers)
    _limited(stages, 256, OUT_OF_MEMORY["a GPU"])
    np.testing.assert_allclose(model.likelihoods(prompts, answers), expected, atol=1e-5)
    assert len(told) == 1


def test_the_observer_of_a_run_is_told_once(run_here: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends well where evaluation finds no room for its batches, and says so."""
    told, features_batch = [], Features.batch

    def short_of_memory(features: Features, indices: np.ndarray) -> tuple[torch.Tensor, PackedBatch]:
        if len(indices) > 20:
            raise OUT_OF_MEMORY["a GPU"]
        return features_batch(features, indices)

    options = {"strategy": ["last_block"], "training__epochs": 1, "data__size": 200}
    (expected,) = run_here(**options)
    monkeypatch.setattr(Features, "batch", short_of_memory)
    monkeypatch.setattr("harness.progress.observer.Observers.warning", lambda _, text: told.append(text))
    (found,) = run_here(**options, force=True)
    assert found.status == "ok"
    assert found.metrics.test.loss == pytest.approx(expected.metrics.test.loss, abs=1e-6)
    assert len(told) == 1


def test_a_gpu_takes_what_a_quarter_of_its_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"bytes": 80 * 10**9}
    monkeypatch.setattr(token_budget, "free_bytes", lambda device: free["bytes"])
    assert affordable_tokens(CUDA, 768, "bf16") == 16_384
    assert affordable_tokens(CPU, 768, "bf16") == 2_048
    needed = 4 * 4_096 * bytes_per_token(1_600, "fp32")
    for given, expected in ((needed, 4_096), (2 * needed - 1, 4_096), (needed - 1, 2_048), (0, 1)):
        free["bytes"] = given
        assert affordable_tokens(CUDA, 1_600, "fp32") == expected
        assert affordable_tokens(CPU, 1_600, "fp32") == 2_048


def test_ranks_agree_on_what_the_shortest_of_them_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "gather", lambda world, value: [value, 512, 4_096])
    assert TokenBudget.of(World(0, 3, CPU), 768, "bf16").tokens == 512


def test_what_lies_on_the_device_is_at_most_a_quarter_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU."""
    flat, device = torch.zeros(1_000, dtype=torch.int64), torch.device("meta")
    for free, there in ((32_000, True), (31_999, False)):
        monkeypatch.setattr(residence, "free_bytes", lambda device, free=free: free)
        assert (resident(flat, device).device == device) == there


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_a_pass_takes_what_the_formula_says(precision: Precision) -> None:
    """Allocated bytes of the real blocks at the peak, without parameters: at most the formula's, at least a third."""
    shape = SHAPES["gpt2"]
    block = nn.ModuleList(GPT2Block(shape) for _ in range(2)).requires_grad_(False)
    prefix = Prefix({"block.0": block[0], "block.1": block[1]}, _FACTS)
    prefix.place(CPU, precision)
    lengths = np.full(16, 64)
    hidden = torch.randn(1_024, shape.hidden, dtype=torch.float64 if precision == "fp64" else torch.float32)
    batch = PackedBatch.packed(lengths)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        prefix.features(hidden, batch)
    results = profiler.profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    peak = hidden.nbytes + max(np.cumsum([change for _, change in changes]))
    allowed = len(hidden) * bytes_per_token(shape.hidden, precision)
    assert allowed / 3 < peak < allowed
