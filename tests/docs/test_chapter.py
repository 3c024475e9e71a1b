"""The chapter for learners: one text, as a script and as a notebook."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from tools.chapter_notebook import NOTEBOOK, executed, from_script


def test_the_notebook_is_the_script() -> None:
    """After a change: python -m tools.chapter_notebook"""
    saved = nbformat.read(NOTEBOOK, as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (saved, from_script())]
    assert cells[0] == cells[1]
    assert all(cell.outputs for cell in saved.cells[-4:] if cell.cell_type == "code"), "it has its output"


def test_it_runs(tmp_path: Path) -> None:
    notebook = executed(from_script(), tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    out = "".join(output.text for output in outputs if output.output_type == "stream")
    found = [re.search(rf"{when} +test: loss [\d.]+, accuracy ([\d.]+)%", out) for when in ("before", "after")]
    before, after = (float(match[1]) for match in found if match)
    assert before < 60 < 90 < after
    at_first, at_last = zip(*re.findall(r"at the first token (.*); at the last (.*)", out), strict=True)
    assert len(set(at_first)) == 1, "two texts that begin alike"
    assert len(set(at_last)) == 2
    assert re.findall(r"^(\w+) \(\d+%\): hi", out, re.MULTILINE) == ["spam", "ham"]
    shown = "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert f"{after:.2f}" in shown, "the loop of the chapter is the harness's"
    assert any("image/png" in output.get("data", {}) for output in outputs), "a plot"
