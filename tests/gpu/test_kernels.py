"""Every kernel on the device beside the plain modules: as near to float32 as these are in the same precision."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import strategies
from harness import kernels
from harness.config.schema import Precision
from harness.features.features import features_of
from harness.kernels.replacing import Kernel
from harness.kernels.shared_beginnings import SharedBeginnings
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import BatchShape, PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Prefix, Suffix, split

pytestmark = pytest.mark.gpu

# Texts of one token and of mini's full context in one batch, and two rows of filler behind them.
LENGTHS = np.array([3, 40, 1, 256, 9, 1])
SHAPE = BatchShape(len(LENGTHS), tokens=640, width=256, filler_rows=2)


def _parts(strategy: str) -> tuple[Prefix, Suffix]:
    torch.manual_seed(1)
    return split(filled_backbone("mini", RandomWeights("gpt2", 0)), strategies.load(strategy).strategy, classes=3)


def _logits_and_gradients(
    strategy: str, device: torch.device, precision: Precision, optimized: bool
) -> tuple[Tensor, Tensor, set[str]]:
    """[rows, classes]; the gradients of all trained parameters, flat, float32; the names of the kernels that ran."""
    prefix, suffix = _parts(strategy)
    prefix.place(device, precision)
    if optimized:
        kernels.optimize(prefix, device, precision)
        kernels.optimize(suffix, device, precision)
    model = InPrecision(suffix, precision, device)
    batch = PackedBatch.packed(LENGTHS, SHAPE)
    generator = torch.Generator().manual_seed(2)
    ids = batch.pack(torch.randint(0, 640, (int(LENGTHS.sum()),), generator=generator))
    logits = model(*features_of(prefix, ids.to(device), batch.to(device)))
    F.cross_entropy(logits, torch.arange(len(LENGTHS), device=device) % 3).backward()
    trained = {name: one for name, one in suffix.named_parameters() if one.requires_grad}
    assert all(one.grad is not None and torch.isfinite(one.grad).all() for one in trained.values())
    gradients = torch.cat([trained[name].grad.flatten().float() for name in sorted(trained)])
    modules = [*prefix.modules(), *suffix.modules()]
    ran = {type(module).__name__ for module in modules if isinstance(module, Kernel)}
    return logits.detach().float(), gradients, ran


def _far(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", strategies.built_in_names())
def test_float32(device: torch.device, name: str) -> None:
    plain, optimized = (_logits_and_gradients(name, device, "fp32", kernel) for kernel in (False, True))
    print(f"{name}, fp32: {', '.join(sorted(optimized[2]))}")
    for found, exact in zip(optimized[:2], plain[:2], strict=True):
        assert _far(found, exact) < 1e-4


@pytest.mark.parametrize("name", strategies.built_in_names())
def test_bfloat16(device: torch.device, name: str) -> None:
    exact = _logits_and_gradients(name, device, "fp32", False)
    plain, optimized = (_logits_and_gradients(name, device, "bf16", kernel) for kernel in (False, True))
    print(f"{name}, bf16: {', '.join(sorted(optimized[2]))}")
    for ours, theirs, right in zip(optimized[:2], plain[:2], exact[:2], strict=True):
        assert _far(ours, right) < 3 * _far(theirs, right) + 5e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_texts_that_begin_alike(device: torch.device, precision: Precision) -> None:
    """Their common tokens are computed once, and give every row what it has by itself."""
    prefix, _ = _parts("last_block")
    prefix.place(device, precision)
    alone = copy.deepcopy(prefix)
    kernels.optimize(prefix, device, precision)
    lengths, common = np.array([12, 20, 9, 40]), np.array([0, 7, 7, 2])
    ids = torch.randint(0, 640, (int(lengths.sum()),), generator=torch.Generator().manual_seed(2))
    rows = list(ids.split(lengths.tolist()))
    for number in range(1, len(rows)):
        rows[number][: common[number]] = rows[number - 1][: common[number]]
    found = []
    for part, batch in ((prefix, SharedBeginnings.of(lengths, common)), (alone, PackedBatch.packed(lengths))):
        features = part.features(batch.pack(torch.cat(rows)).to(device), batch.to(device))
        found.append(batch.to(device).unpack(features).float())
    assert _far(*found) < (1e-4 if precision == "fp32" else 3e-2)
