"""What many texts in one call of `Classifier.predict` save: against single calls of it, and of `transformers`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.data.tasks.word_order import generate
from harness.serving.classifier import Classifier
from harness.serving.export.folder import write_folder

MESSAGES = 1000
ROUNDS = 2


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a saved classifier of the mini model."""
    folder = tmp_path_factory.mktemp("results")
    suite = load_suite(None, {"model.name": "mini", "data.name": "synthetic", "training.epochs": 1}, [])
    commands.run_suite(Console(quiet=True), suite, folder, folder, force=False, save=True)
    return folder


@pytest.mark.parametrize("peer", ["single", "library"])
def test_predict(benchmark, results: Path, tmp_path: Path, peer: str) -> None:
    classifier = Classifier.load(results / "classifier", results)
    texts = [message.text for message in generate(MESSAGES, seed=1)]
    answer = (
        _library(classifier, tmp_path / "exported") if peer == "library" else lambda text: classifier.predict([text])
    )
    theirs: list[float] = []
    ours: list[float] = []
    benchmark.pedantic(
        lambda: ours.append(_seconds(lambda: classifier.predict(texts))),
        setup=lambda: theirs.append(_seconds(lambda: [answer(text) for text in texts])),
        rounds=ROUNDS,
    )
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    benchmark.extra_info |= {
        "strategy": f"predict {MESSAGES:,} texts (mini)",
        "peer": peer,
        "seconds": ours,
        "peer_seconds": theirs,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def _library(classifier: Classifier, folder: Path) -> Callable[[str], object]:
    """The exported classifier, asked as its own documentation does."""
    write_folder(classifier, folder)
    return transformers.pipeline("text-classification", model=str(folder), device=torch.device("cpu"))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
