"""Write the table of `docs/variables.md`, and `options.mk`, which the Makefile includes, from the options that
`harness/config/options.py` declares."""

from __future__ import annotations

from pathlib import Path

from harness.config.options import OPTIONS, Option, options_of
from harness.config.schema import RunConfig
from harness.config.tree import get_key
from harness.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, INCLUDE = ROOT / "docs" / "variables.md", ROOT / "options.mk"
COMMAND = "python -m tools.variables_reference"
BEGIN, END = f"<!-- Made by `{COMMAND}`: -->\n", "<!-- end -->\n"
# Make's targets that pass variables on as options.
TARGETS = ("bench", "plan", "report", "gate", "data")


def page() -> str:
    """The page with the table as the options have it."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{_table()}{END}{after}"


def include() -> str:
    lists = [f"{target.upper()}_OPTIONS = {' '.join(map(_passed, options_of(target)))}\n" for target in TARGETS]
    return "\n".join([f"# Made from harness/config/options.py by `{COMMAND}`.\n", *lists])


def _passed(option: Option) -> str:
    return f"\\\n\t$(call {'flag' if option.is_flag else 'option'},{option.variable},{option.name})"


def _table() -> str:
    rows = ["| variable | default | values |", "| --- | --- | --- |", *map(_row, OPTIONS)]
    return "\n".join([*rows, ""])


def _row(option: Option) -> str:
    variable = f"{option.variable}=1" if option.is_flag else option.variable
    values = f"{option.help} ({option.see})" if option.see else option.help
    return f"| `{variable}` | {_default(option)} | {values} |"


def _default(option: Option) -> str:
    if option.default_text or option.is_flag:
        return option.default_text
    assert option.default is not None or option.key, f"{option.name}: say what its default is"
    value = option.default if option.key is None else get_key(RunConfig().model_dump(), option.key)
    return f"`{value}`"


if __name__ == "__main__":
    write_atomically(PAGE, page())
    write_atomically(INCLUDE, include())
