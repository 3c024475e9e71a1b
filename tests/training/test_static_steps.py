"""Steps of few shapes that never wait for the host: what a GPU needs, shown on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import strategies
from harness import kernels
from harness.config.schema import DataConfig, ModelConfig, OptimizerConfig, Precision, TrainingConfig
from harness.config.strategy import Strategy
from harness.data.batching import global_batches
from harness.data.dataset import load_dataset
from harness.data.encoding import Examples
from harness.data.tokenizer import load_tokenizer
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.model.backbone import Backbone
from harness.model.gpt2 import GPT2
from harness.model.hub.loading import HubModel
from harness.model.named.shapes import Shape
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import Part, Prefix, Suffix, split
from harness.training.batches import TrainingBatches
from harness.training.buckets import Buckets
from harness.training.engines.ddp import DDPEngine
from tests.features.test_features import examples_of
from tests.support.hub_models import save_small
from tests.support.strategies import every_strategy
from tests.support.traced_steps import operations_of_step

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
BUILT_IN = strategies.built_in_names()


def _examples(lengths: list[int]) -> Examples:
    random = np.random.default_rng(0)
    return examples_of([random.integers(0, 640, length).tolist() for length in lengths])


def _cut(strategy: Strategy, precision: Precision, backbone: Backbone | None = None) -> tuple[Prefix, Suffix]:
    torch.manual_seed(0)
    prefix, suffix = split(backbone or filled_backbone("mini", RandomWeights("pytorch", 1)), strategy, 2)
    prefix.place(CPU, precision)
    return prefix, suffix


def _losses(
    name: str, examples: Examples, training: TrainingConfig, few_shapes: bool, padded: bool = False, ranks: int = 1
) -> list[float]:
    """ranks: whose micro-batches one engine takes in turn, which sums the same gradients as a group of them."""
    prefix, suffix = _cut(strategies.load(name).strategy, "fp64")
    for part in (prefix, suffix) if not padded else ():
        kernels.optimize(part, CPU, "fp64")
    width = int(examples.lengths.max()) if padded else None
    features = Features.computed(prefix, examples, CPU, width)
    of_ranks = [
        TrainingBatches(features, examples, training, 0, World(rank, ranks, CPU), few_shapes) for rank in range(ranks)
    ]
    engine = DDPEngine(WORLD, "fp64", fused=True)
    engine.prepare(suffix, OptimizerConfig(learning_rate=1e-4))
    losses = []
    for indices in of_ranks[0].of_all_epochs():
        micro_batches = [one for batches in of_ranks for one in batches.local(indices)]
        losses.append(engine.step(micro_batches, len(indices))[0].item())
    return losses


@pytest.mark.parametrize("name", every_strategy())
def test_losses_do_not_depend_on_filler_or_padding(name: str) -> None:
    """Micro-batches of three of eight, an odd last batch."""
    examples = _examples([1, 40, *np.random.default_rng(1).integers(1, 20, 17).tolist()])
    training = TrainingConfig(epochs=1, micro_batch_size=3, drop_last=False)
    plain = _losses(name, examples, training, few_shapes=False, padded=True)
    assert len(plain) == 3
    for few_shapes, ranks in [(False, 1), (True, 1), (True, 2)]:
        losses = _losses(name, examples, training, few_shapes, ranks=ranks)
        assert losses == pytest.approx(plain, abs=1e-12), (few_shapes, ranks)


@pytest.mark.parametrize("name", BUILT_IN)
def test_gradients_are_finite_from_one_token_to_the_full_context(name: str) -> None:
    strategy = strategies.load(name).strategy
    room = 256 - strategy.positions_before
    examples = _examples([1, room, 2, room - 1])
    prefix, suffix = _cut(strategy, "fp32")
    for part in (prefix, suffix):
        _optimize_for_gpu(part, "fp32")
    batches = TrainingBatches(
        Features.computed(prefix, examples, CPU), examples, TrainingConfig(batch_size=4), 0, WORLD, few_shapes=True
    )
    (batch,) = batches.local(np.arange(4))
    suffix(*batch.inputs()).sum().backward()
    trained = [parameter for parameter in suffix.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


def test_an_epoch_of_real_messages_has_few_shapes_and_little_filler(assets: Path, tmp_path: Path) -> None:
    texts = load_dataset(DataConfig(name="sms_spam", balance=False), tmp_path).split["train"]["text"].tolist()
    lengths = np.array([len(ids) for ids in load_tokenizer("gpt2", tmp_path, assets).encode(texts)])
    for batch_size, most_shapes, most_filler in [(8, 12, 0.2), (64, 8, 0.1), (512, 8, 0.1)]:
        batches = [lengths[part] for part in global_batches(len(lengths), batch_size, 0, 0, drop_last=True)]
        buckets = Buckets.of(batches)
        shapes = [buckets.shape(batch) for batch in batches]
        assert len(set(shapes)) <= most_shapes
        computed = sum(shape.tokens for shape in shapes)
        assert 1 - sum(batch.sum() for batch in batches) / computed < most_filler
        for shape, batch in zip(shapes, batches, strict=True):
            filler = shape.tokens - batch.sum()
            assert batch.max() <= shape.width
            assert 0 <= filler <= shape.filler_rows * shape.width, "no row of filler is longer than the width"


def _optimize_for_gpu(part: Part, precision: Precision) -> None:
    """As `kernels.optimize` does where there is a GPU."""
    kernels.read_in_top_block(part)
    if precision == "bf16":
        kernels.attend_by_lengths(part)
    kernels.fuse(part)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp32", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", every_strategy())
def test_a_step_never_waits_for_the_host(name: str, precision: Precision) -> None:
    parts = _cut(strategies.load(name).strategy, precision)
    assert operations_of_step(*parts, precision, lambda part: _optimize_for_gpu(part, precision), clip_norm=1.0)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("name", ["last_block", pytest.param("full", marks=pytest.mark.long), "lora"])
def test_a_step_of_the_librarys_layers_never_waits_for_the_host(name: str, family: str, tmp_path: Path) -> None:
    model = HubModel(save_small(tmp_path, family))
    backbone = model.empty()
    model.weights(ModelConfig(), tmp_path).fill(backbone, backbone.stages())
    parts = _cut(strategies.load(name).strategy, "bf16", backbone)
    assert operations_of_step(*parts, "bf16", lambda part: _optimize_for_gpu(part, "bf16"))


def test_what_waits_for_the_host_is_seen() -> None:
    def build(backbone: Backbone) -> None:
        backbone.blocks[-1].requires_grad_(True)
        backbone.blocks[-1].register_forward_hook(lambda module, inputs, output: output * bool(output.sum() > 0))

    parts = _cut(Strategy(build=build), "fp32")
    with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        operations_of_step(*parts, "fp32")


@pytest.mark.parametrize("name", [pytest.param("full", marks=pytest.mark.long), "lora"])
def test_a_block_takes_about_half_the_operations(name: str) -> None:
    """In bfloat16, against the plain modules: what one more block adds to a step."""

    def added(optimize: Callable[[Part], None]) -> int:
        strategy, shapes = strategies.load(name).strategy, [Shape(640, 256, 32, blocks, heads=4) for blocks in (2, 3)]
        fewer, more = (operations_of_step(*_cut(strategy, "bf16", GPT2(shape)), "bf16", optimize) for shape in shapes)
        return len(more) - len(fewer)

    fused, plain = added(lambda part: _optimize_for_gpu(part, "bf16")), added(kernels.read_in_top_block)
    print(f"{name}: {fused} instead of {plain} operations a block")
    assert fused < 0.52 * plain
