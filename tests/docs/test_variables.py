"""Options are declared once: the command has them, make passes them on, and the page lists them."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from harness import cli
from harness.config.options import OPTIONS, Option, options_of
from tests.support.runs import ROOT
from tools import variables_reference

GIVEN = {str: "a_word", int: "1", list[str]: "a.b=c d.e='f g'", bool: "1"}


def test_the_table_of_variables_and_what_make_includes_are_up_to_date() -> None:
    assert variables_reference.PAGE.read_text() == variables_reference.page(), variables_reference.COMMAND
    assert variables_reference.INCLUDE.read_text() == variables_reference.include(), variables_reference.COMMAND


def _parsed(*words: str) -> dict[str, Any]:
    """The options with which make would call a command, as the command reads them."""
    dry = subprocess.run(["make", "-n", *words, "BIN=bin"], capture_output=True, text=True, cwd=ROOT, check=True)
    line = next(line for line in dry.stdout.replace("\\\n", " ").splitlines() if line.startswith("bin/ftbench"))
    _, name, *arguments = shlex.split(line)
    group = get_command(cli.app)
    assert isinstance(group, TyperGroup)
    return group.commands[name].make_context(name, arguments).params


@pytest.mark.parametrize("target", variables_reference.TARGETS)
def test_make_passes_on_every_variable_that_is_given_and_no_other(target: str) -> None:
    given = {option.variable: GIVEN.get(option.type, "a/path") for option in options_of(target)}
    parsed, by_default = _parsed(target, *(f"{name}={value}" for name, value in given.items())), _parsed(target)
    for option in options_of(target):
        assert (by_default[option.parameter] or None) == (option.default or None)
        assert parsed[option.parameter] == _expected(option, given[option.variable])


def _expected(option: Option, given: str) -> object:
    if option.is_flag:
        return True
    return [given] if option.type == list[str] else option.type(given)


def test_the_targets_of_options_are_those_that_make_has() -> None:
    assert {target for option in OPTIONS for target in option.targets} == set(variables_reference.TARGETS)
