"""Pages of the documentation: their code blocks and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.runs import ROOT

# What the reader is to bring, or to put in place of a name in capitals: made for a test, so that the rest is checked.
READERS_FILES = {
    "reviews.csv": "text,label\n" + "".join(f"text number {n},{'good' if n % 2 else 'bad'}\n" for n in range(40)),
    "my.yaml": "model: {name: mini}\ndata: {name: reviews.csv}\nseed: [0, 1, 2]\n",
    "path/to/mine.py": "from harness import Strategy\n\nstrategy = Strategy()\n",
    "hosts.txt": "worker-1 slots=4\nworker-2 slots=4\n",
}
# What stands in code spans without being a whole command.
PARTS = {"ftbench run"}
# Entry points of a package that is not installed here.
READERS_STRATEGIES = {"every_second_block"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"(?:\w+=\S+ )*(?:make|ftbench|sbatch|pytest|python|pip) ")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands_of(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if not block["language"]:
            for line in block["content"].splitlines():
                yield re.split(r" {3,}|\s+#\s", line)[0].strip()
    prose = BLOCK.sub("", text)
    for span in re.findall(r"`([^`]+)`", prose):
        command = re.sub(r"\s+", " ", span)
        if TYPED.match(command):
            yield command


@cache
def documented_commands() -> dict[str, str]:
    """Every command, with a page that has it."""
    found = {}
    for page in PAGES:
        for command in commands_of(page):
            if command and command not in PARTS:
                found.setdefault(command, name_of(page))
    return found


def code_blocks(language: str) -> list[object]:
    blocks = [(page, block) for page in PAGES for block in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    chosen = [(name_of(page), block["content"]) for page, block in blocks if block["language"] == language]
    pages = {content: page for page, content in reversed(chosen)}
    return [pytest.param(content, id=f"{page}-{number}") for number, (content, page) in enumerate(pages.items())]
