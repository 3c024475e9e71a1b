"""Forgetting: the language model's loss on the test texts, as `transformers` computes it before and after a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, OPTForCausalLM

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.tokenizer import load_tokenizer
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import MINI_CHECKPOINT
from harness.report.analysis.grouping import groups
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results.record import Record
from harness.results.store import Store
from harness.serving.classifier import Classifier
from harness.serving.export.folder import write_folder
from tests.support.hub_models import save_small, small_model, write_texts
from tests.support.strategies import long

SMALL = {"data__size": 100, "training__epochs": 1, "forgetting": True}


def _loss_by_the_library(model: GPT2LMHeadModel) -> float:
    """On the test texts of SMALL, one after the other."""
    texts = load_dataset(DataConfig(name="synthetic", size=100), Path()).split["test"]["text"].tolist()
    summed, tokens = 0.0, 0
    for ids in load_tokenizer("mini", Path(), None).encode(texts):
        given = torch.tensor([ids])
        with torch.no_grad():
            summed += model.eval()(given, labels=given).loss.item() * (len(ids) - 1)
        tokens += len(ids) - 1
    return summed / tokens


def _pretrained() -> GPT2LMHeadModel:
    shape = SHAPES["mini"]
    sizes = {"n_positions": shape.context, "n_embd": shape.hidden, "n_layer": shape.blocks, "n_head": shape.heads}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=shape.vocabulary, **sizes))
    model.transformer.load_state_dict(load_file(MINI_CHECKPOINT))
    return model


def _trained(tmp_path: Path) -> GPT2LMHeadModel:
    """From the saved classifier, exported with its adapters merged. The export folds the head's bias, which is no
    language model's, into the final norm, so that it is removed first."""
    classifier = Classifier.load(tmp_path / "results" / "classifier", tmp_path / "cache")
    torch.nn.init.zeros_(classifier.suffix.head.bias)
    write_folder(classifier, tmp_path / "results" / "classifier", tmp_path / "exported")
    return GPT2LMHeadModel.from_pretrained(tmp_path / "exported")


@pytest.mark.parametrize("name", ["lora", *long("full", "last_block")])
def test_the_library_finds_the_same_losses(run_here: Callable, tmp_path: Path, name: str) -> None:
    (record,) = run_here(strategy=[name], save=True, **SMALL, optimizer__learning_rate=3e-3, precision="fp32")
    assert record.forgetting.loss_before == pytest.approx(_loss_by_the_library(_pretrained()), abs=1e-5)
    assert record.forgetting.loss_after == pytest.approx(_loss_by_the_library(_trained(tmp_path)), abs=1e-5)
    assert abs(record.forgetting.rise) > 1e-4
    texts = load_dataset(DataConfig(name="synthetic", size=100), Path()).split["test"]["text"].tolist()
    encoded = load_tokenizer("mini", Path(), None).encode(texts)
    assert record.forgetting.tokens == sum(len(ids) - 1 for ids in encoded)


def test_before_the_first_step_nothing_is_forgotten(run_here: Callable) -> None:
    """To the bit, under the causal mask, with all blocks, and with the full token embedding."""
    names = ["full", "lora", "no_causal_mask", "last_padded"]
    records = run_here(strategy=names, **SMALL | {"training__epochs": 0}, precision="fp32")
    records += run_here(strategy=["last_block"], readout_layer=0, **SMALL | {"training__epochs": 0})
    for record in records:
        assert record.forgetting.rise == 0, record.strategy
    assert len({record.forgetting.loss_before for record in records}) == 1


def test_vectors_before_rows_are_no_part_of_the_language_model(run_here: Callable, tmp_path: Path) -> None:
    declared = "from harness import *\n\nstrategy = Strategy(adapt=({}(3),), trainable=('final_norm',))\n"
    names = ["prefix_tuning", "prompt_tuning"]
    for adapter in ("PrefixTuning", "PromptTuning"):
        names.append(str(tmp_path / f"{adapter}.py"))
        Path(names[-1]).write_text(declared.format(adapter))
    alone, also_alone, *others = run_here(strategy=names, **SMALL | {"training__epochs": 0}, precision="fp32")
    for record in (alone, also_alone):
        assert "without its trained vectors the backbone is as it was" in record.forgetting.not_measured
    assert [record.forgetting.rise for record in others] == [0, 0]


def test_a_block_below_the_top_is_trained_and_forgets(run_here: Callable) -> None:
    (record,) = run_here(strategy=["last_block"], readout_layer=0, **SMALL, optimizer__learning_rate=3e-3)
    assert abs(record.forgetting.rise) > 1e-3


def _table(records: list[Record], store: Store) -> ComparisonTable:
    (group,) = groups(records)
    (table,) = comparison_tables([group], store)
    return table


def test_the_table_has_a_column_of_it_where_it_was_measured(run_here: Callable, store: Store) -> None:
    asked = run_here(strategy=["last_block", "head_only", "majority"], **SMALL)
    others = run_here(strategy=["last_two_blocks"], **SMALL | {"forgetting": False})
    table = _table([*asked, *others], store)
    index = [column.name for column in table.columns].index("forgetting")
    assert {row.name: row.cells[index] for row in table.rows} == {
        "last_block": f"{asked[0].forgetting.rise:+.3f}",
        "head_only": "-",
        "last_two_blocks": "-",
        "majority": "-",
    }
    assert "No forgetting was measured of head_only: it leaves the backbone as it was." in table.notes
    assert any("565 tokens of the test texts" in note for note in table.notes)
    assert "forgetting" not in [column.name for column in _table(others, store).columns]


def test_an_encoder_has_none(run_here: Callable, tmp_path: Path) -> None:
    folder, texts = save_small(tmp_path / "bert", "bert"), write_texts(tmp_path / "texts.csv", 3, 8)
    options = {"model__name": f"hf:{folder}", "data__name": str(texts), "training__epochs": 1, "forgetting": True}
    (record,) = run_here(strategy=["last_block"], **options)
    assert record.status == "ok"
    assert "is no language model" in record.forgetting.not_measured


def test_a_decoder_of_the_library_forgets_too(run_here: Callable, tmp_path: Path) -> None:
    folder, texts = save_small(tmp_path / "opt", "opt"), write_texts(tmp_path / "texts.csv", 3, 8)
    options = {"model__name": f"hf:{folder}", "data__name": str(texts), "optimizer__learning_rate": 1e-2}
    (record,) = run_here(strategy=["lora"], **SMALL | {"data__size": 3000}, **options, precision="fp32")
    model, tokenizer = small_model("opt"), AutoTokenizer.from_pretrained(folder)
    library = OPTForCausalLM(model.config).eval()
    library.model.load_state_dict(model.state_dict())
    summed, tokens = 0.0, 0
    for text in load_dataset(DataConfig(name=str(texts)), Path()).split["test"]["text"]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            summed += library(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert record.forgetting.tokens == tokens
    assert record.forgetting.loss_before == pytest.approx(summed / tokens, abs=1e-5)
    assert abs(record.forgetting.rise) > 1e-3


def test_texts_of_one_token_have_no_next_one(run_here: Callable, tmp_path: Path) -> None:
    lines = [f"{letter},{label}" for label, letters in (("a", "bcdefg"), ("b", "hijklm")) for letter in letters]
    (tmp_path / "letters.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    options = SMALL | {"data__size": 3000, "data__name": str(tmp_path / "letters.csv")}
    (record,) = run_here(strategy=["last_block"], **options)
    assert record.forgetting.not_measured == "no test text has two tokens"


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "precision", "tolerance"),
    [
        ([], "fp64", 1e-9),
        (["--engine", "deepspeed", "--zero", "3"], "fp32", 1e-4),
        (["--engine", "fsdp"], "fp64", 1e-9),
    ],
)
def test_two_ranks_forget_as_one(
    ftbench: Callable, run_here: Callable, store: Store, engine: list[str], precision: str, tolerance: float
) -> None:
    options = ["--model", "mini", "--data", "synthetic", "--epochs", "1", "--strategy", "full", "--forgetting"]
    settings = f"data.size=100 optimizer.learning_rate=3e-3 precision={precision}"
    ended = ftbench("run", *options, "--set", settings, "--nproc", "2", *engine)
    assert ended.returncode == 0, ended.stderr
    (found,) = store.all()
    alone = {"results": "alone", "precision": precision, "optimizer__learning_rate": 3e-3}
    (expected,) = run_here(strategy=["full"], **SMALL, **alone)
    assert found.forgetting.loss_before == expected.forgetting.loss_before
    assert found.forgetting.loss_after == pytest.approx(expected.forgetting.loss_after, abs=tolerance)
    assert abs(expected.forgetting.rise) > 1e-3
