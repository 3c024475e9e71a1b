"""What `ftbench init` does: write a folder to start from, whose files lie beside this one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.errors import UserError
from harness.files import write_atomically

# Where each file goes.
FILES = {
    "suite.yaml": "suite.yaml",
    "my_strategy.py": "my_strategy.py",
    "data.csv": "data.csv",
    "github-actions.yml": ".github/workflows/ftbench.yml",
}
WORKFLOW = FILES["github-actions.yml"]
NEXT = {
    "ftbench data data.csv": "what is in the data",
    "ftbench run --config suite.yaml": "fine-tune, measure, compare",
    "ftbench report": "plots and a page: results/report.html",
    'ftbench gate --config suite.yaml --reference gate --update "the first reference"': "to be committed",
    "ftbench gate --config suite.yaml --reference gate": f"what {WORKFLOW} runs",
}


def write_starter(console: Console, folder: Path) -> None:
    """Write the files and print what to type next. Raises UserError, and writes nothing, where one of them exists."""
    existing = [name for name in FILES.values() if (folder / name).exists()]
    if existing:
        raise UserError(
            f"ftbench init {folder}: {', '.join(existing)} exists there already, and nothing is overwritten; name "
            "another folder."
        )
    try:
        for template, name in FILES.items():
            write_atomically(folder / name, Path(__file__).with_name(template).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"ftbench init {folder}: it can't be written ({error.strerror}); name another folder."
        ) from error
    _print_next(console, folder)


def _print_next(console: Console, folder: Path) -> None:
    console.print(f"Wrote {', '.join(FILES.values())}. Next:\n", markup=False, highlight=False)
    if folder.resolve() != Path.cwd():
        console.print(f"  [bold]cd {escape(str(folder))}[/]", highlight=False, soft_wrap=True)
    for command, purpose in NEXT.items():
        console.print(f"  [bold]{escape(command)}[/]  [dim]# {purpose}[/]", highlight=False, soft_wrap=True)
    edit = (
        "\nThen take your own texts (columns `text` and `label`; others are named by data.text_column and "
        f"data.label_column in suite.yaml) and strategies, and say in {WORKFLOW} what pip installs."
    )
    console.print(edit, markup=False, highlight=False, soft_wrap=True)
