"""Write docs/chapter.ipynb, the chapter as a notebook with its output: python -m tools.chapter_notebook."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SCRIPT = Path(__file__).parents[1] / "docs" / "chapter.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def from_script() -> NotebookNode:
    """Without output. Cells are numbered, so that it is the same each time."""
    notebook = jupytext.read(SCRIPT)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """In a kernel that works in `folder`. Raises CellExecutionError where a cell fails."""
    return NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(from_script(), Path(folder))
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)  # when each cell was run
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
