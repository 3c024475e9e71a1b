"""The wheel: what it holds, and that it works in an empty folder without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from harness import __version__
from harness.results.store import Store
from tests.support.runs import ROOT, SMALL_RUN

PROGRAM = """
import sys
from harness import cli
sys.argv = ["ftbench", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("IMPORTED", cli.__file__, *sys.modules)
"""


def _pip(*arguments: str | Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([sys.executable, "-m", "pip", arguments[0], *quiet, *arguments[1:]], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, since a build leaves files beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("harness", "strategies", "configs", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _pip("wheel", "--no-build-isolation", "--wheel-dir", built, source)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed: inside somebody else's checkout, as a virtual environment often is."""
    checkout = tmp_path_factory.mktemp("checkout")
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    _pip("install", "--target", checkout / "site", wheel)
    return checkout / "site"


def installed(site: Path, folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints in `folder`, and the modules that it imports."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(site), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    _, where, *modules = last.split()
    assert where == str(site / "harness" / "cli.py")
    return "\n".join(shown), set(modules)


def test_it_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    sources = [path for package in ("harness", "strategies") for path in (ROOT / package).rglob("*")]
    sources += [ROOT / "harness" / "configs" / suite.name for suite in (ROOT / "configs").iterdir()]
    expected = {path.relative_to(ROOT).as_posix() for path in sources if path.is_file() and path.suffix != ".pyc"}
    assert "harness/configs/textbook.yaml" in expected
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_it_runs_in_an_empty_folder_and_imports_no_deepspeed(site: Path, tmp_path: Path) -> None:
    _, modules = installed(site, tmp_path, "run", *SMALL_RUN)
    assert "torch" in modules
    assert not {"deepspeed", "transformers", "datasets"} & modules
    record = Store(tmp_path / "results").all()[0]
    assert record.environment["git"] is None, "the checkout around it is not this code's"
    assert record.environment["versions"]["ftbench"] == __version__
    assert record.environment["code_sha256"]


@pytest.mark.long
def test_every_command_works_there(site: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    installed(site, tmp_path, "init", str(started))
    installed(site, started, "run", "--config", "suite.yaml", "--save")
    assert "my_strategy" in installed(site, started, "table")[0]
    assert "report.html" in installed(site, started, "report")[0]
    gate = ["gate", "--config", "suite.yaml", "--reference", "gate"]
    installed(site, started, *gate, "--update", "the first reference")
    assert "No regression" in installed(site, started, *gate)[0]
    assert len(installed(site, started, "predict", "It broke at once.", "Very happy.")[0].splitlines()) == 2
    installed(site, started, "export", "exported", "--format", "onnx")
    assert (started / "exported" / "model.onnx").is_file()
    assert "last_block" in installed(site, started, "plan", *SMALL_RUN)[0]
    assert "text" in installed(site, started, "data", "data.csv", "--model", "mini")[0]
    for command in (["list"], ["explain", "last_block", "--model", "mini"], ["check-weights", "--model", "mini"]):
        installed(site, started, *command)


@pytest.mark.long
def test_a_suite_has_a_name_there(site: Path, tmp_path: Path) -> None:
    shown, _ = installed(site, tmp_path, "run", "--config", "plain", *SMALL_RUN)
    assert "last_block" in shown


@pytest.mark.long
def test_its_own_gate_needs_a_checkout(site: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "harness", "gate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs a checkout" in done.stderr
