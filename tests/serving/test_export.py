"""A saved classifier as transformers' own: the same logits from the same texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from harness.data.tokenizer import load_tokenizer
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.serving.classifier import Classifier
from harness.serving.export.tokenizer import byte_pairs
from harness.training.evaluation import predict
from tests.support.hub_models import save_small, write_texts
from tests.support.runs import assert_refused

TEXTS = [
    "You have won a prize!",
    "see you at home",
    "ok",
    "URGENT call 0906 now\n\nor  never " * 5,
    "naïve 汉字 \u2028 🎉",
    "before<|endoftext|>after",
    "far too long " * 300,
]
EXPRESSIBLE = ["head_only", "last_block", "last_two_blocks", "full", "lora"]


@pytest.fixture
def export(run_cli: Callable, tmp_path: Path) -> Callable:
    def run(*arguments: str) -> tuple[int, str, str]:
        folder, cache = tmp_path / "results" / "classifier", tmp_path / "cache"
        return run_cli("export", *arguments, "--classifier", str(folder), "--cache", str(cache), results=None)

    return run


def _library_logits(folder: Path, texts: list[str]) -> np.ndarray:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits.numpy()


def _set_temperature(tmp_path: Path) -> None:
    """To one that tests can see, whatever was fitted."""
    manifest = tmp_path / "results" / "classifier" / "classifier.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"temperature": 1.7}))


def _classifier(tmp_path: Path) -> Classifier:
    return Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache", "fp32")


def _own_logits(classifier: Classifier, texts: list[str]) -> np.ndarray:
    examples = Features.computed(classifier.prefix, classifier.encode(texts), classifier.device)
    return predict(classifier, examples, World(0, 1, classifier.device)) / classifier.about.temperature


@pytest.mark.parametrize(("form", "package"), [("transformers", "tokenizers"), ("onnx", "onnxruntime")])
def test_a_package_that_is_missing_is_told_with_what_brings_it(
    run_here: Callable, export: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    run_here(strategy=["head_only"], save=True, data__size=50, training__epochs=0)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    code, out, told = export(str(tmp_path / "exported"), "--format", form)
    assert_refused(code, out, told)
    assert f"the package {package} is not installed; `pip install 'ftbench[export]'` brings it" in told
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("folder", ["exported", "results/classifier"])
def test_whoever_may_read_a_folder_may_read_its_weights(
    run_here: Callable, export: Callable, tmp_path: Path, folder: str
) -> None:
    run_here(strategy=["head_only"], save=True, data__size=50, training__epochs=0)
    assert export(str(tmp_path / "exported"))[0] == 0
    other = tmp_path / "other"
    other.write_text("")
    assert {path.stat().st_mode for path in (tmp_path / folder).iterdir()} == {other.stat().st_mode}


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_the_library_gives_the_same_logits(run_here: Callable, export: Callable, tmp_path: Path, name: str) -> None:
    run_here(strategy=[name], save=True, data__size=200, training__epochs=1)
    _set_temperature(tmp_path)
    code, out, _ = export(str(tmp_path / "exported"))
    assert (code, "exported" in out.replace("\n", "")) == (0, True)
    classifier, librarys = _classifier(tmp_path), _library_logits(tmp_path / "exported", TEXTS)
    np.testing.assert_allclose(librarys, _own_logits(classifier, TEXTS), atol=1e-4)
    probabilities = classifier.predict(TEXTS).probabilities
    np.testing.assert_allclose(softmax(librarys.astype(float), axis=1), probabilities, atol=1e-5)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "exported")
    assert config.id2label == {0: "ham", 1: "spam"}


@pytest.mark.long
def test_gpt2_and_three_classes(run_here: Callable, export: Callable, tmp_path: Path, assets: Path) -> None:
    rows = [f"{kind} {number} {'x' * (number % 7)},{kind}" for number in range(12) for kind in ("a", "b", "c")]
    (tmp_path / "three.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    data = {"data__name": str(tmp_path / "three.csv"), "model__name": "gpt2", "model__weights": "random"}
    run_here(strategy=["head_only"], save=True, training__epochs=1, **data)
    assert export(str(tmp_path / "exported"))[0] == 0
    short = TEXTS[:-1]  # the library pads all texts to the longest
    own = _own_logits(_classifier(tmp_path), short)
    np.testing.assert_allclose(_library_logits(tmp_path / "exported", short), own, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("first_token", "its readout is first"),
        ("mean_pool", "its readout is mean"),
        ("last_padded", "attends to the padding"),
        ("no_causal_mask", "its attention is full, the model's own causal"),
        ("prompt_tuning", "trained vectors stand before its rows"),
        ("prefix_tuning", "trained vectors stand before its rows"),
    ],
)
def test_what_it_cannot_express_is_refused(run_here, export: Callable, tmp_path: Path, name: str, reason: str) -> None:
    run_here(strategy=[name], save=True, data__size=100, training__epochs=0)
    code, out, told = export(str(tmp_path / "exported"))
    assert_refused(code, out, told)
    assert reason in told
    assert not (tmp_path / "exported").exists()


WORDS = ["w1 w2 yes", "w5", "w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 yes", "[SEP] unknown w3", "w4 " * 90]


@pytest.fixture
def run_small(run_here: Callable, tmp_path: Path) -> Callable:
    """Train a small random model of the library, and save the classifier."""

    def run(family: str, strategy: str, **options: object) -> Path:
        folder = save_small(tmp_path / family, family)
        if family == "roberta":  # its positions skip what pads
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 0, "max_position_embeddings": 66}))
        data = str(write_texts(tmp_path / "texts.csv", 2, 20))
        names = {"model__name": f"hf:{folder}", "data__name": data}
        (record,) = run_here(strategy=strategy, save=True, training__epochs=1, **names, **options)
        assert record.status == "ok", record.error
        return folder

    return run


_LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("family", "strategy"),
    [
        ("bert", "lora"),
        ("roberta", "last_block"),
        ("distilbert", "full"),
        ("gpt2", "lora"),
        ("opt", "last_block"),
        ("gpt_neox", "full"),
        *(
            pytest.param(family, strategy, marks=_LONG)
            for family in ("bert", "roberta", "distilbert", "gpt2", "opt", "gpt_neox")
            for strategy in ("head_only", "last_two_blocks", "bias_only", "probe_then_full")
        ),
    ],
)
def test_models_of_the_library_become_its_own_classes(
    run_small: Callable, export: Callable, tmp_path: Path, family: str, strategy: str
) -> None:
    run_small(family, strategy, data__cut="tail")
    _set_temperature(tmp_path)
    code, out, told = export(str(tmp_path / "exported"))
    assert (code, "ForSequenceClassification" in out) == (0, True), told
    librarys = _library_logits(tmp_path / "exported", WORDS)
    np.testing.assert_allclose(librarys, _own_logits(_classifier(tmp_path), WORDS), atol=1e-4)
    assert np.ptp(librarys[:, 0]) > 0.01, "texts are told apart"


@pytest.mark.parametrize(
    ("family", "reason"),
    [("llama", "has no bias, nor has the final norm"), ("modernbert", "forgets the size of what it is given")],
)
def test_heads_that_cannot_be_ours_are_refused(
    run_small: Callable, export: Callable, tmp_path: Path, family: str, reason: str
) -> None:
    run_small(family, "head_only")
    code, out, told = export(str(tmp_path / "exported"))
    assert_refused(code, out, told)
    assert reason in told
    assert "--format onnx" in told


def test_nothing_is_overwritten(run_here: Callable, export: Callable, tmp_path: Path) -> None:
    run_here(strategy=["last_block"], save=True, data__size=100, training__epochs=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for target in (tmp_path / "full", tmp_path / "full" / "mine"):
        code, out, told = export(str(target))
        assert_refused(code, out, told)
        assert "name another" in told
    assert (tmp_path / "full" / "mine").read_text() == "mine"


_OURS = load_tokenizer("mini", Path(), None)
_LIBRARYS = byte_pairs(_OURS, model_max_length=256, split_special_tokens=True)


@settings(max_examples=200)
@given(st.text(max_size=60))
@example("before<|endoftext|>after")
def test_its_tokenizer_cuts_texts_alike(text: str) -> None:
    assert _LIBRARYS(text)["input_ids"] == _OURS.encode([text])[0]
