"""What `ftbench check-results` does: checks contributions to shared results, and writes the page that compares them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.files import write_atomically
from harness.sharing.checks import copies, problems_of
from harness.sharing.contribution import Contribution, contributions_in
from harness.sharing.page import PAGE, device_name, page_of


def check_results(console: Console, folder: Path, write: bool) -> int:
    """Print a line for each contribution and every problem; returns the exit code, 1 where there is one.

    write: write the page, where no contribution has a problem; else it must be up to date. Raises UserError where the
    folder holds no contributions.
    """
    contributions = contributions_in(folder)
    copied = copies(contributions)
    found = {one.name: [*problems_of(one), *copied.get(one.name, [])] for one in contributions}
    for one in contributions:
        _print_contribution(console, one, found[one.name])
    if any(found.values()):
        return 1
    page, path = page_of(contributions), folder / PAGE
    if write:
        write_atomically(path, page)
        console.print(f"Wrote {path}.", highlight=False, markup=False, soft_wrap=True)
    elif not path.is_file() or path.read_text(encoding="utf-8") != page:
        text = f"{path} is not what the records give: `ftbench check-results --write` writes it."
        console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        return 1
    return 0


def _print_contribution(console: Console, one: Contribution, problems: list[str]) -> None:
    if not problems:
        names = len({record.strategy for record in one.records})
        device = device_name(one.records[0])
        text = f"{one.name}: ok, {len(one.records)} runs of {names} strategies and baselines, {device}"
        console.print(text, style="green", highlight=False, markup=False, soft_wrap=True)
        return
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    console.print(f"{one.name}: {count}", style="red", highlight=False, markup=False, soft_wrap=True)
    for problem in problems:
        console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
