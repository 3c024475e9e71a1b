"""`harness.compare` in a real notebook: what each cell shows."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.runs import ROOT

# A kernel starts, and imports PyTorch.
pytestmark = pytest.mark.long
CELLS = (
    """
from harness import compare
texts = [f"text number {n}, {'good' if n % 2 else 'bad'}" for n in range(60)]
comparison = compare((texts, [n % 2 for n in range(60)]), ["last_block", "head_only", "majority"],
                     model="mini", seeds=range(3), epochs=1, cache="cache")
""",
    "comparison",
    "comparison.plot()",
    "comparison.best.predict(texts[:2])",
    "compare((texts, texts[1:]))",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=120, allow_errors=True, resources=resources).execute()
    return [cell["outputs"] for cell in notebook["cells"]]


def test_a_running_comparison_has_two_outputs_however_many_runs(outputs: list[list[Any]]) -> None:
    plan, progress = outputs[0]
    assert "(as asked)" in plan["data"]["text/plain"]
    html = progress["data"]["text/html"]
    assert html.count("test ") == 7, "a line for each run, and nothing of what is over"
    assert "suite" not in html


def test_a_comparison_shows_its_table(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[1]
    assert "<table>" in shown["data"]["text/html"]
    assert "head_only" in shown["data"]["text/plain"]


def test_a_plot_is_a_picture(outputs: list[list[Any]]) -> None:
    assert [sorted(output["data"], reverse=True) for output in outputs[2]] == [["text/plain", "image/png"]]


def test_the_best_predicts(outputs: list[list[Any]]) -> None:
    assert outputs[3][-1]["data"]["text/plain"].startswith("array([")


def test_a_mistake_is_a_message(outputs: list[list[Any]]) -> None:
    (error,) = outputs[4]
    assert (error["ename"], error["evalue"]) == (
        "InvalidInput",
        "60 texts and 59 labels: give one label for each text.",
    )
