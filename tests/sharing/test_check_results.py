"""`ftbench check-results`: a contribution that is whole passes, and whatever is changed in it is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from harness.sharing.contribution import MANIFEST, About
from harness.sharing.page import PAGE
from tests.sharing.conftest import ABOUT, NAME, REVISION, change, run_of
from tests.support.documents import BLOCK
from tests.support.runs import ROOT, assert_refused


def changed(key: str, value: Any) -> Callable[[Path], None]:
    return lambda shared: change(run_of(shared), key, value)


def change_predictions(shared: Path, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = run_of(shared) / "predictions.csv"
    edit(pd.read_csv(path)).to_csv(path, index=False)


def predictions(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda shared: change_predictions(shared, edit)


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda shared: (shared / NAME / name).write_text(content) and None


def other_labels(shared: Path) -> None:
    """Of one run, in all that follows from them, so that the run agrees with itself."""
    rows = pd.read_csv(run_of(shared) / "predictions.csv")
    swap = {"ham": "spam", "spam": "ham"}
    rows["label"] = rows["label"].map(swap)
    rows.to_csv(run_of(shared) / "predictions.csv", index=False)


def lost_seeds(shared: Path) -> None:
    shutil.rmtree(run_of(shared, seed=2))


def two_machines(shared: Path) -> None:
    change(run_of(shared), "environment.processor", "another one")


def failed(shared: Path) -> None:
    change(run_of(shared), "status", "failed")
    change(run_of(shared), "error", "a rank was lost")


def renamed(shared: Path) -> None:
    change(run_of(shared), "run_id", "full-mini-synthetic-s0-0123456789")
    run_of(shared).rename(shared / NAME / "runs" / "full-mini-synthetic-s0-0123456789")


def no_such_file(name: str) -> Callable[[Path], None]:
    return lambda shared: (run_of(shared) / name).unlink()


def test_a_whole_contribution_passes(checked: Callable, shared: Path) -> None:
    code, out = checked()
    assert code == 1
    assert "is not what the records give" in out, "the page is still to be written"
    code, out = checked("--write")
    assert code == 0
    page = (shared / PAGE).read_text()
    assert page.count("| head_only |") == 1
    assert "majority" in page
    code, out = checked()
    assert code == 0
    assert out.startswith(f"{NAME}: ok, 4 runs of 2 strategies and baselines, ")


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (changed("metrics.test.accuracy", 0.99), "metrics.test.accuracy is 0.99, but predictions.csv gives"),
        (changed("metrics.test.correct", 19), "metrics.test.correct is 19, but predictions.csv gives"),
        (changed("metrics.test.loss", 0.01), "metrics.test.loss is 0.01, but predictions.csv gives"),
        (changed("metrics.test.f1", {"ham": 1.0, "spam": 1.0}), "metrics.test.f1 is"),
        (changed("metrics.train.accuracy", 0.99), "metrics.train.accuracy is 0.99, but"),
        (changed("metrics.train.total", 80), "but the part has 70 texts"),
        (changed("metrics.validation.interval", [0.9, 1.0]), "metrics.validation.interval is not Wilson's"),
        (changed("metrics", None), "status ok without metrics"),
        (changed("metrics.train.loss", float("nan")), "metrics.train.loss is nan, not a number"),
        (changed("seconds.total", 0.001), "seconds.total is 0.001, but the phases are"),
        (changed("seconds.train", -1.0), "seconds.train is -1.0, below 0"),
        (changed("memory", {"peak_bytes": 5, "definition": "guessed", "by_rank": []}), "memory.peak_bytes is 5, but"),
        (changed("model.trainable_parameters", 10**9), "1000000000 trained parameters of"),
        (changed("config.optimizer.learning_rate", 1e-3), "identity does not follow"),
        (changed("data.sha256", "0" * 64), "identity does not follow"),
        (changed("seed", 7), "seed 7 is not that of the configuration (0)"),
        (changed("strategy", "full"), "does not follow from strategy, model, data, seed and identity"),
        (renamed, "does not follow from strategy, model, data, seed and identity"),
        (lambda shared: run_of(shared).rename(shared / NAME / "runs" / "mine"), "its folder is named 'mine'"),
        (changed("note", "a field of another version"), "is no record of schema version"),
        (changed("strategy_source.origin", "mine.py"), "runs code from outside the harness: mine.py"),
        (failed, "status failed: only runs that ended as ok, oom, diverged are shared"),
        (changed("status", "oom"), "status oom without a reason"),
        (lost_seeds, "head_only has 2 seeds: expected 3 or more"),
        (two_machines, "environment.processor is "),
        (changed("environment.code_sha256", "0" * 64), "environment.code_sha256 is "),
        (changed("environment.git.modified", True), "1 runs have uncommitted changes"),
        (changed("environment.git.revision", "f" * 40), f"1 runs are of revision {'f' * 40}, not {REVISION}"),
        (no_such_file("predictions.csv"), "no predictions.csv: add the one that the run wrote"),
        (no_such_file("record.json"), "no record.json; add it, or delete the folder"),
        (predictions(lambda rows: rows.iloc[1:]), "predictions.csv has 19 rows, but there are 20 test texts"),
        (predictions(lambda rows: rows.assign(index=1)), "has an index twice (1)"),
        (predictions(lambda rows: rows.assign(label="eggs")), "has the class 'eggs': the record has ham, spam"),
        (predictions(lambda rows: rows.assign(probability_ham=0.9)), "probabilities that do not add up to 1"),
        (predictions(lambda rows: rows.assign(probability_ham="much")), "a probability that is no number"),
        (predictions(lambda rows: rows.assign(predicted="ham")), "times another class than the most probable one"),
        (predictions(lambda rows: rows.drop(columns="probability_ham")), "predictions.csv has the columns"),
        (other_labels, "predictions.csv has other labels than that of"),
        (
            changed("error", "HfHubError: token hf_abcdefghijklmnopqrstuvwx"),
            "error has the shape of a token (hf_abc...)",
        ),
        (changed("error", "open https://me:secret@example.org/x"), "error has the shape of a password"),
        (changed("choices.data", "auto: at /home/me/texts"), "choices.data has the shape of an absolute path"),
        (changed("error", "rank 1 on gpu-7.internal was lost"), "the name of a host (gpu-7.internal)"),
        (changed("error", "no answer of 10.1.2.3"), "the address of a host (10.1.2.3)"),
        (written("table.md", "a table"), "table.md: no part of a contribution; delete it"),
        (written("large.bin", "x" * 10_000_000), "MB, of which at most 10 are taken"),
        (written(MANIFEST, ABOUT.replace("CC0-1.0", "mine")), "configuration key 'licence' is 'mine'"),
        (written(MANIFEST, "by: me\n"), "configuration key 'machine' is missing"),
        (written(MANIFEST, "- by\n"), "expected keys and values"),
        (lambda shared: (shared / NAME / MANIFEST).unlink(), f"no {MANIFEST}: write one with by, machine"),
        (lambda shared: shutil.rmtree(shared / NAME / "runs"), "no records below"),
        (lambda shared: (shared / NAME).rename(shared / "My Results"), "the folder's name 'My Results'"),
        (lambda shared: shutil.copytree(shared / NAME, shared / "z-copy"), f"the same run as in {NAME}"),
    ],
)
def test_what_is_wrong_is_named(checked: Callable, shared: Path, tamper: Callable, told: str) -> None:
    tamper(shared)
    code, out = checked()
    assert (code, told in out) == (1, True), out
    assert "Traceback" not in out


def test_all_problems_are_listed_at_once(checked: Callable, shared: Path) -> None:
    two_machines(shared)
    changed("metrics.train.accuracy", 0.99)(shared)
    written("notes.txt", "mine")(shared)
    _, out = checked("--write")
    assert out.startswith(f"{NAME}: 3 problems\n")
    assert not (shared / PAGE).exists(), "the page shows only what has passed"


def test_a_run_out_of_memory_is_information(checked: Callable, shared: Path) -> None:
    for seed in range(3):
        run = run_of(shared, seed=seed)
        (run / "predictions.csv").unlink()
        change(run, "status", "oom")
        change(run, "error", "out of memory")
        change(run, "metrics", None)
    code, out = checked("--write")
    assert code == 0, out
    assert "| 3 | oom |" in (shared / PAGE).read_text()


def test_ordinary_texts_are_not_private(checked: Callable, shared: Path) -> None:
    change(
        run_of(shared), "error", "see https://example.org/a/b and docs/data.md, 12 tok./s, torch 2.13.0.1-x, 1/2 or / 3"
    )
    code, out = checked("--write")
    assert code == 0, out


def test_machines_stand_below_each_other(checked: Callable, shared: Path) -> None:
    other = Path(shutil.copytree(shared / NAME, shared / "other"))
    for number, run in enumerate((other / "runs").iterdir()):
        change(run, "environment.processor", "Other | CPU")
        tree = json.loads((run / "record.json").read_text())
        change(run, "seconds.train", tree["seconds"]["train"] + number + 1)
        change(run, "seconds.total", tree["seconds"]["total"] + number + 1)
    code, out = checked("--write")
    assert code == 0, out
    lines = (shared / PAGE).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| head_only |"))
    assert lines[first + 1].startswith("|  | Other \\| CPU, ")
    assert sum(line.startswith("| majority |") for line in lines) == 1, "a baseline stands once"
    assert sum(line.startswith("## mini") for line in lines) == 1, "one table for a model and its data"


@pytest.mark.parametrize(("below", "told"), [(NAME, "is one contribution"), ("nothing", "no contributions below")])
def test_a_folder_without_contributions(run_cli: Callable, shared: Path, below: str, told: str) -> None:
    code, out, error = run_cli("check-results", str(shared / below), results=None)
    assert_refused(code, out, error)
    assert told in error


def test_the_shared_results_of_the_repository_pass(run_cli: Callable) -> None:
    code, out, _ = run_cli("check-results", str(ROOT / "results" / "shared"), results=None)
    assert code == 0, out


def test_the_example_of_the_rules_is_valid() -> None:
    page = (ROOT / "results" / "shared" / "README.md").read_text()
    (example,) = (block["content"] for block in BLOCK.finditer(page) if block["language"] == "yaml")
    assert About.model_validate(yaml.safe_load(example))
