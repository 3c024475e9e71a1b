"""`make perf`: what the machine can do, beside which the rest is read."""

from __future__ import annotations

import pytest
import torch

from benchmarks.processes import product_rate


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ceiling_of_matrix_products(benchmark, precision: str) -> None:
    rates = []
    benchmark.pedantic(lambda: rates.append(product_rate(precision)), rounds=5)
    benchmark.extra_info |= {"precision": precision, "teraflops": max(rates) / 1e12}


def test_ceiling_of_memory(benchmark) -> None:
    source = torch.empty(64_000_000)
    target = torch.empty_like(source)
    benchmark(target.copy_, source)
    benchmark.extra_info["gigabytes_per_second"] = 2 * source.nbytes / benchmark.stats.stats.median / 1e9
