"""Label smoothing, dropout and gradient checkpointing: PyTorch's definitions, and the same however a batch is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import strategies
from harness import kernels
from harness.config.schema import TrainingConfig
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import Suffix, split
from harness.training.batches import TrainingBatches
from harness.training.loss import loss_sum
from tests.features.test_features import examples_of
from tests.support.runs import losses_of, predicted_by

CPU = torch.device("cpu")
EXAMPLES = examples_of([[number, 7, 9] for number in range(1, 38)])
COMMON = {"strategy": ["last_block", "head_only"], "precision": "fp64", "data__size": 60, "training__epochs": 1}


def _batches(rank: int = 0, ranks: int = 1, few_shapes: bool = False, **training: object) -> TrainingBatches:
    prefix, _ = split(filled_backbone("mini", RandomWeights("gpt2", 1)), strategies.load("full").strategy, 2)
    config = TrainingConfig(drop_last=False, micro_batch_size=3, **training)
    world, features = World(rank, ranks, CPU), Features.computed(prefix, EXAMPLES, CPU)
    return TrainingBatches(features, EXAMPLES, config, 5, world, few_shapes, hidden=64)


@pytest.mark.parametrize("ranks", [1, 3])
def test_label_smoothing_is_pytorchs(ranks: int) -> None:
    logits = torch.randn(len(EXAMPLES), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(EXAMPLES.labels)
    of_ranks = [_batches(rank, ranks, label_smoothing=0.2) for rank in range(ranks)]
    for indices in of_ranks[0].of_epoch(0):
        total = torch.zeros((), dtype=torch.float64)
        for batches in of_ranks:
            for (part, _), micro_batch in zip(batches._parts(indices), batches.local(indices), strict=True):
                total += loss_sum(logits[part], micro_batch)
        expected = F.cross_entropy(logits[indices], labels[indices], reduction="sum", label_smoothing=0.2)
        assert total.item() == pytest.approx(expected.item())


def _dropout_by_example(batches: TrainingBatches, indices: np.ndarray, step: int) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for (part, counts), micro_batch in zip(batches._parts(indices), batches.local(indices, step), strict=True):
        _, batch = micro_batch.inputs()
        assert batch.dropout is not None
        found |= dict(zip(part.tolist(), batch.dropout, strict=True)) if counts else {}
    return found


@pytest.mark.parametrize("few_shapes", [False, True])
def test_dropout_is_that_of_the_global_batch_on_every_rank(few_shapes: bool) -> None:
    indices = _batches().of_epoch(0)[0]
    alone = _dropout_by_example(_batches(few_shapes=few_shapes, dropout=0.25), indices, step=3)
    assert alone.keys() == set(indices.tolist())
    shared: dict[int, Tensor] = {}
    for rank in range(3):
        shared |= _dropout_by_example(_batches(rank, 3, few_shapes, dropout=0.25), indices, step=3)
    torch.testing.assert_close(shared, alone, rtol=0, atol=0)
    other = _dropout_by_example(_batches(dropout=0.25), indices, step=4)
    assert not any(torch.equal(other[index], alone[index]) for index in alone)


def test_dropout_drops_the_part_asked_for_and_keeps_the_mean() -> None:
    batches = _batches(dropout=0.25)
    drawn = [
        torch.stack(list(_dropout_by_example(batches, batches.of_epoch(0)[0], step).values())) for step in range(50)
    ]
    factors = torch.cat(drawn)
    assert factors.unique().tolist() == pytest.approx([0, 4 / 3])
    assert factors.mean().item() == pytest.approx(1, abs=0.02)
    assert (factors == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_a_run_with_dropout_is_the_same_cut_otherwise_and_on_the_plain_path(run_here: Callable, tmp_path: Path) -> None:
    """Where the prefix hands over the tokens read only, too (`head_only`)."""
    recipe = {"training__dropout": 0.3, "training__label_smoothing": 0.1}
    dropped, cut, plain, none = (
        run_here(results=str(number), **COMMON, **options)
        for number, options in enumerate(
            [recipe, {**recipe, "training__micro_batch_size": 3}, {**recipe, "plain": True}, {}]
        )
    )
    for number, others in [(1, cut), (2, plain)]:
        for mine, other in zip(dropped, others, strict=True):
            expected = losses_of(tmp_path / "0", mine)
            assert losses_of(tmp_path / str(number), other) == pytest.approx(expected, abs=1e-9)
            assert predicted_by(tmp_path / str(number), other) == predicted_by(tmp_path / "0", mine)
    assert losses_of(tmp_path / "0", dropped[0]) != losses_of(tmp_path / "3", none[0])


def _suffix(recomputes: bool) -> tuple[Features, Suffix]:
    torch.manual_seed(0)
    prefix, suffix = split(filled_backbone("mini", RandomWeights("gpt2", 1)), strategies.load("full").strategy, 2)
    kernels.optimize(suffix, CPU, "fp64")
    suffix.double().recomputes_blocks = recomputes
    return Features.computed(prefix, EXAMPLES, CPU), suffix


def test_gradient_checkpointing_stores_less_and_gives_the_same_gradients() -> None:
    stored, gradients = {}, {}
    for recomputes in (False, True):
        features, suffix = _suffix(recomputes)
        kept: list[Tensor] = []

        def pack(tensor: Tensor, kept: list[Tensor] = kept) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = suffix(*features.batch(np.arange(16))).square().sum()
        loss.backward()
        stored[recomputes] = sum(tensor.nbytes for tensor in kept)
        gradients[recomputes] = {name: parameter.grad for name, parameter in suffix.named_parameters()}
    torch.testing.assert_close(gradients[True], gradients[False], rtol=1e-12, atol=1e-14)
    assert stored[True] < stored[False] / 4


def test_a_run_with_gradient_checkpointing_has_the_same_losses(run_here: Callable, tmp_path: Path) -> None:
    options = {**COMMON, "strategy": ["lora"], "optimizer__learning_rate": 1e-4}
    stored, recomputed = (
        run_here(results=str(on), **options, training__gradient_checkpointing=on) for on in (False, True)
    )
    for mine, other in zip(stored, recomputed, strict=True):
        expected = losses_of(tmp_path / "False", mine)
        assert losses_of(tmp_path / "True", other) == pytest.approx(expected, abs=1e-9)
