"""docs/troubleshooting.md holds every message that the harness refuses something with.

The messages are taken from the source: of each `UserError(...)`, of its subclasses and of what becomes one the longest
literal part. Whoever writes a new message, or another wording, finds here that the page lacks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.runs import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
FOLDERS = ("harness", "strategies")
# What becomes a UserError where a person has asked for it.
ERRORS = {"UserError", "NotAvailable"}
# Of what a strategy declares: told as "strategy NAME can't be loaded: ValueError: ...".
DECLARED = Path("harness/config/strategy.py")
# Functions that compose messages, which others raise.
COMPOSERS = {Path("harness/config/tree.py"): "explain", Path("harness/training/checkpoints.py"): "_write"}
# What is raised as it was composed elsewhere.
WRAPPED = {"problem", "explain(error, RunConfig)", "f'{where}: {explain(error, RowHeading)}'", "f'{where}: {error}'"}
# Shorter literals are glue, as in f"{where}: {error}".
SHORTEST = 8


@cache
def sources() -> dict[Path, ast.Module]:
    files = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    return {file.relative_to(ROOT): ast.parse(file.read_text()) for file in files}


@cache
def errors() -> set[str]:
    """ERRORS and all that is derived from them."""
    known = set(ERRORS)
    classes = [node for tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base) for base in node.bases} for node in classes}
    for _ in classes:  # a class may be derived from one that is found later
        known |= {name for name, of_class in bases.items() if known & of_class}
    return known


@cache
def messages() -> list[tuple[str, str]]:
    """Where each is raised, and its longest literal part; the expression itself where there is none."""
    return list(_found_messages())


def _found_messages() -> Iterator[tuple[str, str]]:
    known = errors()
    for path, tree in sources().items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args):
                name = ast.unparse(call.func).rpartition(".")[2]
                if name in known or (name == "ValueError" and path == DECLARED):
                    found = list(_literals(call.args[-1], function)) or [ast.unparse(call.args[-1])]
                    yield from ((f"{path}:{call.lineno}", text) for text in found if text not in WRAPPED)
            if COMPOSERS.get(path) == function.name:
                statements = (node for statement in function.body[1:] for node in ast.walk(statement))
                texts = filter(None, map(_longest, statements))
                yield from ((f"{path}:{function.lineno}", text) for text in texts if " " in text)


def _literals(argument: ast.expr, function: ast.FunctionDef) -> Iterator[str]:
    """Of the message itself, and of what is assigned in the same function to a name that it holds."""
    if text := _longest(argument):
        yield text
    names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and names & {ast.unparse(target) for target in node.targets}:
            values = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            yield from filter(None, map(_longest, values))


def _longest(node: ast.AST) -> str | None:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    longest = max(texts, key=len, default="")
    return longest if len(longest.strip()) >= SHORTEST else None


def plain(text: str) -> str:
    """Without what Markdown writes and a terminal does not, on one line."""
    return re.sub(r"\s+", " ", text.replace("`", "")).strip()


def lacking(page: str) -> list[str]:
    page = plain(page)
    return sorted({f"{where}: {text!r}" for where, text in messages() if plain(text) not in page})


def test_every_message_of_the_harness_stands_on_the_page() -> None:
    assert not lacking(PAGE.read_text())


def test_the_messages_are_found_in_the_source() -> None:
    found = {text for _, text in messages()}
    assert len(found) > 120
    assert "unknown strategy " not in found, "not the longest part of its message"
    assert ": expected HOST:PORT, such as 10.0.0.1:29400." in found
    assert " names no machine: expected lines such as `worker-1 slots=4`." in found
    assert " are not mapped; docs/backbones.md says how to add one to " in found, "assigned first, raised later"
    assert "is neither a folder nor a GGUF file" in found, "one of two"
    assert {"NotHere", "CanNotAnswer"} <= errors()


@pytest.mark.parametrize("text", ["names no machine", "is a pickle, which can run code", "in the same place"])
def test_a_message_that_the_page_lacks_is_named(text: str) -> None:
    page = PAGE.read_text()
    rest = "\n".join(line for line in page.splitlines() if text not in line)
    (missing,) = set(lacking(rest)) - set(lacking(page))
    assert text in missing
