"""A saved classifier as an ONNX file: the same logits from the same texts, whatever the strategy and the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import transformers
from scipy.special import softmax

from harness.model.hub.families import FAMILIES
from harness.serving.classifier import Classifier
from tests.support.hub_models import save_small, write_texts
from tests.support.runs import assert_refused
from tests.support.strategies import every_strategy

TEXTS = [
    "ok",
    "You have won a prize!",
    "URGENT call 0906 now\n\nor  never " * 5,
    "naïve 汉字 🎉",
    "far too long " * 300,
]
WORDS = ["w5", "w1 w2 yes", "w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 yes", "[SEP] unknown w3", "w4 " * 90]
IN_EVERY_TEST = ("mistral", "modernbert")


@pytest.fixture
def export(run_cli: Callable, tmp_path: Path) -> Callable:
    """Export to `tmp_path / "exported"`."""

    def run() -> tuple[int, str, str]:
        classifier, cache = tmp_path / "results" / "classifier", tmp_path / "cache"
        arguments = (str(tmp_path / "exported"), "--format", "onnx", "--classifier", str(classifier))
        return run_cli("export", *arguments, "--cache", str(cache), results=None)

    return run


def _probabilities(folder: Path, *texts: list[str]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    batch = tokenizer(*texts, padding=True, truncation=True, return_tensors="np", return_token_type_ids=True)
    (logits,) = session.run(["logits"], {one.name: batch[one.name] for one in session.get_inputs()})
    return softmax(logits.astype(float), axis=1)


def _check(export: Callable, folder: Path, texts: list[str]) -> None:
    """The file gives what `ftbench predict` does for all texts together and for each alone."""
    classifier = Classifier.load(folder / "results" / "classifier", folder / "cache", "fp32")
    expected = classifier.predict(texts).probabilities
    code, _, told = export()
    assert code == 0, told
    np.testing.assert_allclose(_probabilities(folder / "exported", texts), expected, atol=1e-4)
    alone = [_probabilities(folder / "exported", [text])[0] for text in texts]
    np.testing.assert_allclose(alone, expected, atol=1e-4)


@pytest.mark.parametrize("name", every_strategy(short=("lora", "last_padded", "prompt_tuning")))
def test_every_strategy(run_here: Callable, export: Callable, tmp_path: Path, name: str) -> None:
    run_here(strategy=[name], save=True, data__size=100, training__epochs=1)
    _check(export, tmp_path, TEXTS)
    session = onnxruntime.InferenceSession(tmp_path / "exported" / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == ["ham", "spam"]
    assert transformers.AutoConfig.from_pretrained(tmp_path / "exported").id2label == {0: "ham", 1: "spam"}


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.long] * (name not in IN_EVERY_TEST)) for name in FAMILIES]
)
def test_every_family(run_here: Callable, export: Callable, tmp_path: Path, family: str) -> None:
    """Some have windows of attention that are shorter than the texts."""
    names = {"model__name": f"hf:{save_small(tmp_path / family, family)}"}
    names["data__name"] = str(write_texts(tmp_path / "texts.csv", 2, 20))
    run_here(strategy=["last_block"], save=True, training__epochs=1, **names)
    _check(export, tmp_path, WORDS)


def test_pairs(run_here: Callable, export: Callable, tmp_path: Path) -> None:
    """BERT is told which of the two texts a token is of."""
    rows = [f"w{n} w{n + 1},w{(n * 7) % 80} yes,{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,label\n" + "\n".join(rows) + "\n")
    names = {"model__name": f"hf:{save_small(tmp_path / 'bert', 'bert')}", "data__name": str(tmp_path / "pairs.csv")}
    run_here(strategy=["last_block"], save=True, training__epochs=1, **names)
    first, second = ["w1 w2 w3", "w4"], ["yes", "w5 w6 w7 w8"]
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache", "fp32")
    assert classifier.about.config.data.pair
    expected = classifier.predict([f"{one}\t{other}" for one, other in zip(first, second, strict=True)])
    assert export()[0] == 0
    np.testing.assert_allclose(_probabilities(tmp_path / "exported", first, second), expected.probabilities, atol=1e-4)


DEPENDS_ON_THE_SHAPE = """
from torch import nn
from harness import Strategy

class Doubled(nn.Module):
    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, hidden):
        return self.mlp(hidden) * (2 if len(hidden) > 9 else 1)

def build(backbone):
    block = backbone.stages()["block.0"]
    block.mlp = Doubled(block.mlp)

strategy = Strategy(trainable=("block.-1",), build=build)
"""


def test_a_file_that_answers_otherwise_is_refused(run_here: Callable, export: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DEPENDS_ON_THE_SHAPE)
    run_here(strategy=str(tmp_path / "mine.py"), save=True, data__size=100, training__epochs=1)
    code, out, told = export()
    assert code == 2
    assert "can't be exported to ONNX: for 1 rows of 1 tokens a logit differs by" in told
    assert not out
    assert not list((tmp_path / "exported").glob("*")), "nothing is left"


def test_a_missing_package_is_named(
    run_here: Callable, export: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(strategy=["head_only"], save=True, data__size=100, training__epochs=0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, told = export()
    assert_refused(code, out, told)
    assert "onnxruntime is not installed; `pip install 'ftbench[export]'`" in told
