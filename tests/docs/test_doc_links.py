"""The pages among themselves: links lead somewhere, and what is made from the code is up to date."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.documents import BLOCK, name_of
from tests.support.runs import ROOT
from tools import draw_figures, record_reference


def _is_ours(page: Path) -> bool:
    first, *_ = page.relative_to(ROOT).parts
    return not first.startswith(".") and first != "shared"


# In a fixed order: the workers of pytest-xdist must collect the same.
ALL_PAGES = sorted(filter(_is_ours, ROOT.rglob("*.md")))


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub names its headings."""
    headings = re.findall(r"^#{1,6} (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`]*`", "", BLOCK.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if f"](docs/{page.name}" not in readme]


def test_the_reference_of_the_record_is_up_to_date() -> None:
    assert record_reference.PAGE.read_text() == record_reference.reference(), "python -m tools.record_reference"


@pytest.mark.parametrize(("name", "drawn"), draw_figures.figures().items())
def test_figures_are_up_to_date(name: str, drawn: str) -> None:
    assert (draw_figures.FOLDER / name).read_text() == drawn, "python -m tools.draw_figures"
