"""The benchmarks, which `make test` does not run, can at least be imported."""

from __future__ import annotations

import importlib

import pytest

from tests.support.runs import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")))
def test_it_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")
