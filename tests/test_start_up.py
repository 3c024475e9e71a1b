"""How soon a command answers: what only training needs is not imported before."""

from __future__ import annotations

import subprocess
import sys

from tests.support.runs import ROOT

PROGRAM = """
import sys
from harness import cli
sys.argv = ["ftbench", "list", "--model", "mini"]
try:
    cli.main()
finally:
    print("IMPORTED", sorted({"torch", "torch._dynamo", "sklearn"} & set(sys.modules)))
"""


def test_no_compiler_and_no_scikit_learn_is_imported_to_build_backbones_and_to_list_baselines() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "IMPORTED ['torch']"
