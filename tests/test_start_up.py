"""How soon a command answers: what it does not need is not imported before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from harness.results.store import Store
from tests.support.runs import ROOT

# Each takes from a tenth of a second to seconds. Most of SciPy's time is that of `scipy.stats`.
SLOW = {
    "torch",
    "torch._dynamo",
    "pandas",
    "scipy",
    "scipy.stats",
    "scipy.optimize",
    "sklearn",
    "matplotlib",
    "transformers",
    "deepspeed",
}
PROGRAM = """
import sys
from harness import cli
sys.argv = ["ftbench", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("IMPORTED", *sys.modules)
"""


def slow_imports_of(*arguments: str) -> set[str]:
    """What of SLOW a command imports, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return SLOW & set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_slow() -> None:
    assert slow_imports_of("--help") == set()
    assert slow_imports_of("run", "--help") == set()
    assert slow_imports_of("--version") == set()


def test_strategies_and_baselines_are_listed_without_pytorch() -> None:
    """Parameters of GPT-2s are counted beforehand."""
    assert slow_imports_of("list", "--model", "gpt2-xl", "--classes", "3") == set()


def test_backbones_are_built_without_the_compiler() -> None:
    assert "torch._dynamo" not in slow_imports_of("explain", "last_block", "--model", "mini")


def test_a_table_needs_no_pytorch(run_here: Callable, store: Store) -> None:
    run_here(strategy=["head_only", "last_block", "majority"], seed=[0, 1], training__epochs=0)
    assert slow_imports_of("table", "--results", str(store.results)) == {"pandas", "scipy"}
