"""A rank that leaves takes its children with it: what reads its output sees the end."""

from __future__ import annotations

import subprocess
import sys

from tests.support.runs import ROOT

PROGRAM = """
import multiprocessing, time
from harness.distributed.process_group import leave
multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
print("child started")
leave(3)
"""


def test_no_child_outlives_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, b"child started\n")
