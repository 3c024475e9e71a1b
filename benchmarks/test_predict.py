"""What `Classifier.predict` saves by taking many texts at once: the same messages in one call and in single ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from harness import bench
from harness.data.synthetic import generate
from harness.serve import Classifier
from harness.suite_file import load_suite

MESSAGES = 1000
ROUNDS = 3


def test_predict(benchmark, tmp_path: Path) -> None:
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 400, "training.epochs": 1}
    bench.run_suite(
        Console(quiet=True), load_suite(None, options, []), tmp_path / "results", tmp_path, force=False, save=True
    )
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path)
    texts = [message.text for message in generate(MESSAGES, seed=1)]
    measured = [(_seconds(lambda: classifier.predict(texts)), _single(classifier, texts)) for _ in range(ROUNDS)]
    together, single = zip(*measured, strict=True)
    ratios = [theirs / ours for ours, theirs in measured]
    benchmark.pedantic(classifier.predict, args=(texts,), rounds=ROUNDS)
    benchmark.extra_info |= {
        "strategy": f"predict {MESSAGES:,} texts (mini)",
        "peer": "single",
        "seconds": together,
        "peer_seconds": single,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def _single(classifier: Classifier, texts: list[str]) -> float:
    return _seconds(lambda: [classifier.predict([text]) for text in texts])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
