"""The saved classifier predicts as in its run, and refuses bad input."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.errors import UserError
from harness.results.store import Store
from harness.serving.classifier import Classifier
from harness.statistics import expected_calibration_error
from tests.serving.conftest import SIZE
from tests.support.runs import assert_refused
from tests.support.strategies import every_strategy

SMALL = {"data__size": SIZE, "training__epochs": 1}
# With adapters, padding, vectors before the rows, and a fitted head; `last_block` is that of the other tests.
KINDS = ("lora", "last_padded", "prompt_tuning", "probe_then_full")


@pytest.fixture
def predict(run_cli: Callable, trained: Path, tmp_path: Path) -> Callable:
    def run(*arguments: str, classifier: Path = trained) -> tuple[int, str, str]:
        options = ["--classifier", str(classifier), "--cache", str(tmp_path / "cache")]
        return run_cli("predict", *arguments, *options, results=None)

    return run


@pytest.fixture
def refused_text(predict: Callable) -> Callable[..., str]:
    def run(*arguments: str, **options: Path) -> str:
        code, out, told = predict(*arguments, **options)
        assert_refused(code, out, told)
        return told

    return run


def _test_texts(size: int = SIZE) -> list[str]:
    return load_dataset(DataConfig(name="synthetic", size=size), Path()).split["test"]["text"].tolist()


DROPOUT_BELOW = """
from torch import nn
from harness import Strategy

def build(backbone):
    block = backbone.stages()["block.0"]
    block.mlp = nn.Sequential(block.mlp, nn.Dropout(0.5))

strategy = Strategy(trainable=("block.-1",), build=build)
"""


@pytest.mark.parametrize("name", [*every_strategy(short=KINDS), "dropout_below.py"])
def test_it_answers_as_its_run_did(
    run_here: Callable, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dropout_below.py").write_text(DROPOUT_BELOW)
    (record,) = run_here(strategy=[name], save=True, **SMALL)
    recorded = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    texts = _test_texts()
    answers = classifier.predict(texts)
    assert answers.labels == recorded["predicted"].tolist()
    calibrated = softmax(
        np.log(recorded[["probability_ham", "probability_spam"]]) / classifier.about.temperature, axis=1
    )
    assert answers.probabilities == pytest.approx(calibrated, abs=1e-6)
    backwards, alone = classifier.predict(texts[::-1]), classifier.predict(texts[:1])
    assert backwards.probabilities[::-1] == pytest.approx(answers.probabilities, abs=1e-6)
    assert alone.probabilities == pytest.approx(answers.probabilities[:1], abs=1e-6)


def test_its_probabilities_are_calibrated(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], save=True, **SMALL)
    assert record.calibration.temperature not in (None, 1)
    dataset = load_dataset(DataConfig(name="synthetic", size=SIZE), Path())
    labels = np.array([dataset.source.classes.index(name) for name in dataset.split["test"]["label"]])
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    likelihoods = classifier.predict(_test_texts()).probabilities
    assert -np.log(likelihoods[np.arange(len(labels)), labels]).mean() == pytest.approx(record.calibration.test_loss)
    error = expected_calibration_error(likelihoods, labels)
    assert error == pytest.approx(record.calibration.test_calibration_error, abs=1e-6)


def test_a_classifier_of_a_version_without_a_temperature_predicts_as_before(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], save=True, **SMALL)
    manifest = tmp_path / "results" / "classifier" / "classifier.json"
    older = json.loads(manifest.read_text())
    del older["temperature"]
    manifest.write_text(json.dumps(older))
    answers = Classifier.load(manifest.parent, tmp_path / "cache").predict(_test_texts())
    recorded = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    assert answers.probabilities[:, 1] == pytest.approx(recorded["probability_spam"].to_numpy(), abs=1e-6)


@pytest.mark.long
def test_what_two_ranks_have_trained(ftbench: Callable, tmp_path: Path) -> None:
    options = ["--model", "mini", "--data", "synthetic", "--epochs", "1", "--set", f"data.size={SIZE}", "--nproc", "2"]
    assert ftbench("run", "--save", "--strategy", "lora", *options).returncode == 0
    (record,) = Store(tmp_path / "results").all()
    recorded = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    assert classifier.predict(_test_texts()).labels == recorded["predicted"].tolist()


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "epochs"),
    [
        *((["deepspeed", "--zero", str(stage)], epochs) for stage, epochs in ((0, 1), (2, 0), (3, 0), (3, 1))),
        (["fsdp"], 0),
        (["fsdp"], 1),
    ],
)
def test_what_sharded_engines_have_trained(ftbench: Callable, tmp_path: Path, engine: list[str], epochs: int) -> None:
    options = ["--model", "mini", "--data", "synthetic", "--epochs", str(epochs), "--set", f"data.size={SIZE}"]
    options += ["--nproc", "2", "--engine", *engine]
    done = ftbench("run", "--save", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = Store(tmp_path / "results").all()
    recorded = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    assert classifier.predict(_test_texts()).labels == recorded["predicted"].tolist()


def test_texts_from_anywhere(predict: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["you have won a prize", "see you at home\u2028tonight"]
    code, out, _ = predict(*texts)
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == Classifier.load(tmp_path / "results" / "classifier", tmp_path).predict(
        texts
    ).labels
    assert all(0.5 <= float(row[1]) <= 1 for row in rows)
    (tmp_path / "texts.txt").write_text("\r\n".join(texts))
    file = ["--file", str(tmp_path / "texts.txt")]
    assert predict(*file)[:2] == (0, out)
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO("\n".join(texts).encode()))
    )
    assert predict()[:2] == (0, out)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text, "more": 1}) + "\n" for text in texts))
    code, out, _ = predict("--file", str(tmp_path / "texts.jsonl"), "--jsonl")
    answers = [json.loads(line) for line in out.split("\n") if line]
    assert [answer["text"] for answer in answers] == texts
    assert [answer["label"] for answer in answers] == [row[0] for row in rows]


def test_no_text_at_all(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text is given"):
        Classifier.load(trained, tmp_path / "cache").predict([])


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_an_empty_text(refused_text: Callable, blank: str) -> None:
    assert "text 2 of 2 is empty" in refused_text("hello", blank)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", [], "is empty"),
        (b"hello\n\nyou", [], "line 2: the text is empty"),
        (b"hello\ncaf\xe9", [], "line 2: not UTF-8"),
        (b'{"text": "hello"}\nhello', ["--jsonl"], "line 2: no JSON"),
        (b'{"text": 3}', ["--jsonl"], "line 1: no text in it"),
        (b'{"text": ' + b"1" * 5000 + b"}", ["--jsonl"], "line 1: no JSON"),
        (b"[1]", ["--jsonl"], "line 1: no text in it"),
        (b'{"text": "\\ud800"}', ["--jsonl"], "not UTF-8"),
    ],
    ids=repr,
)
def test_a_file_that_cannot_be_read(
    refused_text: Callable, tmp_path: Path, content: bytes, arguments: list[str], message: str
) -> None:
    (tmp_path / "texts").write_bytes(content)
    assert message in refused_text("--file", str(tmp_path / "texts"), *arguments)


def test_texts_that_are_not_there(refused_text: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert "no text is given" in refused_text()
    assert "can't be read" in refused_text("--file", str(tmp_path / "none"))
    assert "both texts and --file" in refused_text("hello", "--file", str(tmp_path / "none"))
    assert "not UTF-8" in refused_text("caf\udce9")


@pytest.mark.parametrize("text", ["call me now! " * 800_000, "a" * 10_000_000, " " * 10_000_000 + "a"], ids=len)
def test_ten_megabytes_of_text(predict: Callable, tmp_path: Path, text: str) -> None:
    (tmp_path / "long").write_text(text)
    code, out, told = predict("--file", str(tmp_path / "long"))
    assert code == 0
    assert out.split("\t")[0] in ("ham", "spam")
    assert "1 of 1 texts were longer than a row may be, and were cut" in told


def test_a_classifier_may_move_but_must_be_whole(predict: Callable, refused_text: Callable, trained, tmp_path) -> None:
    answer = predict("hello")
    moved = shutil.copytree(trained, tmp_path / "elsewhere")
    assert predict("hello", classifier=moved) == answer
    tensors = moved / "model.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "damaged" in refused_text("hello", classifier=moved)
    tensors.unlink()
    assert "incomplete" in refused_text("hello", classifier=moved)
    (moved / "classifier.json").write_text("{}")
    assert "no classifier of this version" in refused_text("hello", classifier=moved)
    (moved / "classifier.json").unlink()
    assert "make bench SAVE=1" in refused_text("hello", classifier=moved)
    assert "make bench SAVE=1" in refused_text("hello", classifier=tmp_path / "nowhere")


def test_what_it_stands_on_must_be_the_same(run_here: Callable, predict: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\nfrom harness import Strategy\nstrategy = Strategy(trainable=("final_norm",))\n'
    )
    run_here(strategy=[str(tmp_path / "mine.py")], save=True, **SMALL)
    folder = tmp_path / "results" / "classifier"
    about = json.loads((folder / "classifier.json").read_text())
    code, _, told = predict("hello", classifier=folder)
    assert (code, "mine runs code from outside the harness" in told) == (0, True)
    (folder / "classifier.json").write_text(json.dumps({**about, "weights_sha256": "0" * 64}))
    code, out, told = predict("hello", classifier=folder)
    assert_refused(code, out, told.split("\n", 1)[1])
    assert "stands on weights of mini with sha256 000" in told
    (folder / "classifier.json").write_text(json.dumps(about))
    with (tmp_path / "mine.py").open("a") as file:
        file.write("raise SystemExit('ran')\n")
    code, out, told = predict("hello", classifier=folder)
    assert_refused(code, out, told.split("\n", 1)[1])
    assert "its code has changed" in told, "and was not run"


def test_a_classifier_of_pairs_takes_two_texts(run_here: Callable, tmp_path: Path) -> None:
    rows = [{"premise": f"send {n}", "hypothesis": f"get {n}", "label": "ab"[n % 2]} for n in range(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (record,) = run_here(strategy=["last_block"], save=True, data__name=str(tmp_path / "pairs.jsonl"))
    frame = Store(tmp_path / "results").predictions(record.run_id)
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    texts = [f"{rows[index]['premise']}\t{rows[index]['hypothesis']}" for index in frame["index"]]
    assert classifier.predict(texts).labels == frame["predicted"].tolist()
    with pytest.raises(UserError, match="trained on pairs; expected two texts with a tab between them"):
        classifier.predict(["one text"])
