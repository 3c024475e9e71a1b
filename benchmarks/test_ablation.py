"""What each kernel saves: seconds of a row with and without it, in turn, on GPT-2 124M."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks.ablation import WITHOUT
from benchmarks.processes import PRECISION, ours
from benchmarks.test_speed import FULL, ROUNDS, real_messages
from harness.kernels.cpu import onednn

# The row that gains most, and its epochs in the short mode.
ROWS = {
    "one_query": ("last_block", 5),
    "attention": ("full", 1),
    "packed_linear": ("head_only", 1),
    "few_rows": ("last_block", 5),
    "occurring_tokens": ("full", 1),
    "shared_beginnings": ("head_only", 1),
}
NEEDS_BF16 = ("packed_linear", "few_rows")
TEXTS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real messages; in short mode some of them."""
    train = real_messages()
    if FULL:
        return "sms_spam"
    path: Path = tmp_path_factory.mktemp("data") / "sms.csv"
    train.iloc[:TEXTS].to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("kernel", WITHOUT)
def test_without_a_kernel(benchmark, kernel: str, data: str) -> None:
    if kernel in NEEDS_BF16 and not (PRECISION == "bf16" and onednn.is_available()):
        pytest.skip("this processor does not have this kernel's products")
    strategy, epochs = ROWS[kernel]
    without: list[float] = []
    having: list[float] = []

    def measure_without() -> None:
        without.append(ours(strategy, data, epochs, without=kernel).record.seconds.total)

    def measure() -> None:
        having.append(ours(strategy, data, epochs).record.seconds.total)

    benchmark.pedantic(measure, setup=measure_without, rounds=ROUNDS, iterations=1)
    benchmark.extra_info.update(
        kernel=kernel, row=strategy, seconds=statistics.median(having), without=statistics.median(without)
    )
