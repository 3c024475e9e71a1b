"""What recognises a finished run and stored features: code that can change them, and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.measure.code import PACKAGE, features_code_sha256, results_code_sha256
from harness.planning import workspace

SHOWS_ONLY = {
    "api",
    "report",
    "progress",
    "tracking",
    "prediction",
    "gate",
    "serving",
    "sharing",
    "starter",
    "cli",
    "commands",
    "__main__",
}
FEATURES = {"data", "model", "kernels", "features"}
PARTS = sorted(path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or list(path.glob("*.py")))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("package") / "harness"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    return copy


def _changes(hash_of: Callable[[Path], str], package: Path, part: str) -> bool:
    """Whether a line more in a module of `part` makes another hash."""
    folder = package / part
    module = max(folder.rglob("*.py")) if folder.is_dir() else folder.with_suffix(".py")
    content, before = module.read_text(), hash_of(package)
    module.write_text(content + "# changed\n")
    try:
        return hash_of(package) != before
    finally:
        module.write_text(content)


def test_every_part_is_looked_at() -> None:
    assert set(PARTS) >= SHOWS_ONLY | FEATURES | {"planning", "training", "experiment", "results", "statistics"}


@pytest.mark.parametrize("part", PARTS)
def test_a_change_of_code_that_only_shows_results_leaves_finished_runs_finished(package: Path, part: str) -> None:
    assert _changes(results_code_sha256, package, part) == (part not in SHOWS_ONLY)


@pytest.mark.parametrize("part", PARTS)
def test_features_depend_on_the_code_that_computes_them(package: Path, part: str) -> None:
    assert _changes(features_code_sha256, package, part) == (part in FEATURES)


def test_a_finished_run_is_done_again_only_where_its_code_has_changed(
    run_here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"strategy": ["head_only"], "data__size": 50, "training__epochs": 0}
    assert len(run_here(**options)) == 1
    assert run_here(**options) == []
    monkeypatch.setattr(workspace, "results_code_sha256", lambda: "another")
    assert len(run_here(**options)) == 1


def test_where_a_file_lies_is_no_part_of_what_its_runs_are(
    run_here: Callable, run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = "".join(f"{'good' if number % 2 else 'bad'} text {number}\t{number % 2}\n" for number in range(40))
    (tmp_path / "own.tsv").write_text(f"text\tlabel\n{texts}")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(run_here(data__name="own.tsv", strategy="majority")) == 1
    assert run_here(data__name=str(tmp_path / "own.tsv"), strategy="majority") == []
    (tmp_path / "own.tsv").rename(tmp_path / "other" / "own.tsv")
    assert run_here(data__name="other/own.tsv", strategy="majority") == []
    assert len(run_here(data__name="other/own.tsv", strategy="length_rule")) == 1
    _, printed, _ = run_cli("table", "--format", "csv")
    assert [line.split(",")[0] for line in printed.splitlines()] == ["strategy", "majority", "length_rule"], "one table"
    (tmp_path / "other" / "own.tsv").write_text(f"text\tlabel\nanother\t1\n{texts}")
    assert len(run_here(data__name="other/own.tsv", strategy="majority")) == 1
