"""ftbench without one of its kernels: `python -m benchmarks.ablation KERNEL run --strategy last_block ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from harness import cli, kernels
from harness.experiment import cut_model
from harness.features import distinct


def _nothing(*_: object) -> None:
    """In the place of what puts a kernel in."""


# By the module of the kernel: what leaves it out.
WITHOUT: dict[str, Callable[[], None]] = {
    "one_query": lambda: setattr(kernels, "read_in_top_block", _nothing),
    "attention": lambda: setattr(kernels, "attend_row_by_row", _nothing),
    "packed_linear": lambda: setattr(kernels, "pack_matrices", _nothing),
    "few_rows": lambda: setattr(kernels, "multiply_few_rows_in_float32", _nothing),
    "occurring_tokens": lambda: setattr(cut_model, "train_occurring_tokens", _nothing),
    "shared_beginnings": lambda: setattr(distinct, "_common_tokens", lambda *_: 0),
}

if __name__ == "__main__":
    WITHOUT[sys.argv.pop(1)]()
    cli.main()
