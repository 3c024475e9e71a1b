"""What the documents say is so: commands work. (`test_doc_links.py`: links; `test_doc_code.py`: code blocks.)

Commands are every line of a code block without a language, and every code span, that begins with `make` or `ftbench`,
and what else stands there to be typed. Each is expanded by make and parsed by the command; those on the embedded model
and data are run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import strategies
from harness import baselines, cli, commands
from harness.config.suite import SuiteConfig
from harness.data.sources import BUILT_IN
from harness.errors import UserError
from tests.support.documents import (
    READERS_FILES,
    READERS_STRATEGIES,
    code_blocks,
    commands_of,
    documented_commands,
)
from tests.support.runs import ROOT


def checked(command: str) -> object:
    return pytest.param(command, id=command)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository's root with what the reader brings, and an environment whose `ftbench` is this code."""
    parts = ("configs", "cluster", "docs", "tests", "benchmarks")
    for name in ("Makefile", "options.mk", "pyproject.toml", "constraints.txt", *parts):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, content in READERS_FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for program, module in (("ftbench", "-m harness"), ("python", "")):
        script = binaries / program
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def made(words: list[str], folder: Path) -> list[list[str]]:
    """What make would run from the environment for a command, as words."""
    given = [word.partition("=")[0] for word in words if re.match(r"\w+=", word)]
    known = "".join((ROOT / name).read_text() for name in ("Makefile", "options.mk"))
    unknown = [name for name in given if not re.search(rf"\b{name}\b", known)]
    assert not unknown, "make would ignore it"
    dry = subprocess.run(["make", "-n", *words[1:]], capture_output=True, text=True, cwd=folder, check=False)
    assert dry.returncode == 0, dry.stderr
    lines = dry.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if ".venv/bin/" in line]


def check_ftbench(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> SuiteConfig | None:
    """Parse a command line of ftbench; of `run` the suite that it asks for, checked as far as nothing is loaded."""
    if arguments == ["--help"]:
        return None
    asked: list[SuiteConfig] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(commands, "run_suite", lambda console, suite, **how: asked.append(suite) or 0)
    group = typer.main.get_command(cli.app)
    sub_command, *rest = arguments
    assert sub_command in group.commands, f"ftbench has no command {sub_command!r}"
    context = group.commands[sub_command].make_context(sub_command, rest)
    if sub_command != "run":
        return None
    with pytest.raises(typer.Exit):
        context.invoke(context.command.callback, **context.params)
    for name in {run.strategy for run in asked[0].runs()} - {*baselines.NAMES, *READERS_STRATEGIES}:
        strategies.load(name)
    for name in {run.data.name for run in asked[0].runs()} - {"auto", *BUILT_IN}:
        assert Path(name).is_file(), name
    return asked[0]


def check(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> SuiteConfig | None:
    """Whether a command can be typed so; of one that runs a suite the suite."""
    words = shlex.split(command)
    while re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    program = words[0]
    if program == "make":
        runs = [line for line in made(words, folder) if line[0].endswith("/ftbench")]
        return check_ftbench(runs[0][1:], folder, monkeypatch) if runs else None
    if program == "ftbench":
        return check_ftbench(words[1:], folder, monkeypatch)
    if program == "torchrun":
        return check_ftbench(words[words.index("harness") + 1 :], folder, monkeypatch)
    if program == "sbatch":
        script = next(number for number, word in enumerate(words) if word.endswith(".sbatch"))
        assert (folder / words[script]).is_file()
        return check_ftbench(["run", *words[script + 1 :]], folder, monkeypatch)
    if program in ("pytest", "python"):
        if program == "python" and words[1] == "-m" and words[2] != "pytest":
            assert importlib.util.find_spec(words[2]), words[2]
            return None
        files = [word for word in words[1:] if word.endswith(".py")]
        assert files
        assert all((folder / file).is_file() for file in files)
        return None
    if program == "docker":
        declared = (ROOT / "Dockerfile").read_text()
        assert all(f"ARG {word.partition('=')[0]}" in declared for word in words if re.fullmatch(r"[A-Z_]+=.*", word))
        return None
    assert program in ("pip", "kubectl", "sky"), f"{program}: say here how to check it"
    return None


def is_quick(suite: SuiteConfig | None) -> bool:
    """Whether it runs anywhere, on the embedded model and data."""
    return suite is not None and all(
        (run.model.name, run.data.name, run.engine.nodes) == ("mini", "synthetic", 1) for run in suite.runs()
    )


def test_commands_are_found() -> None:
    for command in (
        "make bench STRATEGY=last_block",  # a block
        "ftbench list",  # a span
        'make gate-update REASON="why"',
        "STRATEGY=last_block,full SEEDS=0,1,2 sbatch --array=0-5 cluster/slurm.sbatch",
        "make bench MODEL=hf:./model.gguf",  # without the words beside it
    ):
        assert command in documented_commands()
    assert len(documented_commands()) > 40


@pytest.mark.parametrize("command", map(checked, documented_commands()))
def test_a_command_can_be_typed_so(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command, folder, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "make bench STRATEGIES=last_block",
        "make bench EPOCHS=five",
        "make benchmark",
        "make bench STRATEGY=last_blok",
        'make bench SET="trainig.epochs=1"',
        "make bench DATA=missing.csv",
        "ftbench list --modell mini",
        "ftbench lists",
        "python -m benchmarks.missing",
        "pytest tests/test_missing.py",
    ],
)
def test_what_does_not_exist_is_found(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, UserError, typer.BadParameter.__base__)):
        check(command, folder, monkeypatch)


def test_both_readmes_have_the_same_commands_and_figures() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert list(commands_of(english)) == list(commands_of(chinese))
    tables = [
        "".join(re.findall(r"^\|.*", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in (english, chinese)
    ]
    in_english, in_chinese = (re.findall(r"\d+(?:[.,]\d+)*", table) for table in tables)
    assert in_english == in_chinese


def typed(command: str, folder: Path, **environment: str) -> str:
    """Run it as a shell does, in the folder; returns what it printed."""
    variables = os.environ | {"PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=folder, env=variables | environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_next_steps_lead_to_a_report_and_a_prediction(folder: Path) -> None:
    steps = [
        "make bench MODEL=mini DATA=synthetic STRATEGY=last_block,first_token SAVE=1",
        "make report",
        'ftbench predict "free prize, call now"',
        "ftbench export my_classifier",
        "ftbench table --sort test --format markdown",
    ]
    assert not set(steps) - set(documented_commands())
    told = [typed(step, folder) for step in steps]
    assert "ftbench predict" in told[0]
    assert (folder / "results" / "report.html").exists()
    assert told[2].split("\t")[0] in ("ham", "spam")
    assert (folder / "my_classifier" / "config.json").exists()
    assert told[4].index("last_block") < told[4].index("first_token")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("ftbench explain last_block", "Trained: "),
        ("ftbench list", "Strategies on gpt2, 2 classes"),
        ("ftbench list --model mini", "198,786"),
        ("ftbench check-weights --model mini", "the weights are loaded right"),
    ],
)
def test_commands_that_only_look(command: str, shown: str, run_cli: Callable) -> None:
    assert command in documented_commands()
    code, out, _ = run_cli(*shlex.split(command)[1:], results=None)
    assert (code, shown in out) == (0, True), out


@pytest.mark.long
def test_every_command_on_the_embedded_model_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [command for command in documented_commands() if command.startswith("make bench")]
    with monkeypatch.context() as patched:
        quick = [command for command in own if is_quick(check(command, folder, patched))]
    assert quick
    for number, command in enumerate(quick):
        assert "Wrote " in typed(f"{command} RESULTS=results-{number} CACHE=cache", folder)


@pytest.mark.long
def test_the_first_command_runs_without_network_or_assets(folder: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    out = typed(
        "make bench STRATEGY=last_block CACHE=cache",
        folder,
        FTBENCH_ASSETS="",
        HTTPS_PROXY=nowhere,
        https_proxy=nowhere,
        HTTP_PROXY=nowhere,
        HF_HUB_OFFLINE="1",
    )
    assert re.search(r"model +mini +\(auto: ", out)
    assert re.search(r"data +synthetic +\(auto: ", out)


# Code


@pytest.mark.parametrize("code", code_blocks("yaml"))
def test_a_suite_in_a_document_runs(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "suite.yaml").write_text(code)
    assert check("make bench CONFIG=suite.yaml", folder, monkeypatch).rows
