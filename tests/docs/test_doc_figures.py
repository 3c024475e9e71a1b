"""What the documents repeat is so: extracts equal the full tables in results/reference, named files exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import ROOT

REFERENCE = ROOT / "results" / "reference"


def tables(page: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Each table of a page: its rows by the name in their first cell, a row as a cell for each heading."""
    for block in re.findall(r"^\|.*\|\n\| ---.*\n(?:\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        headings, _, *rows = (
            [cell.strip().strip("*") for cell in line[1:-1].split("|")] for line in block.splitlines()
        )
        yield {row[0].strip("` †"): dict(zip(headings, row, strict=True)) for row in rows if len(row) == len(headings)}


def table(page: Path, heading: str, row: str) -> dict[str, dict[str, str]]:
    return next(found for found in tables(page) if row in found and heading in found[row])


@pytest.mark.parametrize(
    ("page", "first", "reference"),
    [
        ("README.md", "reads", "smollm2_sms_spam_5_seeds.md"),
        ("docs/results.md", "ROC AUC", "gpt2_random_sms_spam_10_seeds.md"),
        ("docs/results.md", "examples/s", "mini_synthetic_all.md"),
    ],
)
def test_an_extract_equals_the_full_table(page: str, first: str, reference: str) -> None:
    full = table(REFERENCE / reference, "test % [95%]", "last_block")
    shown = next(
        found
        for found in tables(ROOT / page)
        if first in found.get("last_block", {})
        and found["last_block"]["test % [95%]"] == full["last_block"]["test % [95%]"]
    )
    assert shown.keys() == full.keys()
    for name, row in shown.items():
        cells = {"trained" if heading == "parameters" else heading: cell for heading, cell in row.items()}
        for heading in cells.keys() & full[name].keys() - {"strategy", "row"}:
            assert cells[heading] == full[name][heading], (name, heading)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:harness|strategies|tests|benchmarks|tools|configs)/[^`\s]*)`", page.read_text(encoding="utf-8")
    )
    assert not [path for path in named if not (ROOT / path).exists()]
