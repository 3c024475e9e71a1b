"""`ftbench explain`: the picture must tell what a run of the strategy does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import strategies
from harness.planning.strategy import split_without_tensors, trainable_parameters
from harness.planning.workspace import Workspace
from harness.report.explain import PADDING, lines
from harness.results.record import Record
from tests.support.hub_models import save_small

DECODERS = ["head_only", "last_block", "last_two_blocks", "full", "lora", "mean_pool", "last_padded"]


@pytest.fixture
def explain(run_cli: Callable, tmp_path: Path) -> Callable[..., str]:
    def printed(*arguments: str) -> str:
        code, out, told = run_cli("explain", *arguments, "--cache", str(tmp_path / "cache"), results=None)
        assert (code, told) == (0, "")
        return out

    return printed


def _row(out: str, title: str) -> list[str]:
    """The cells of a line of the token picture, by the columns of its tokens; empty where nothing stands."""
    tokens = next(line for line in out.splitlines() if line.startswith(" tokens"))
    starts = [match.start() for match in re.finditer(r"\S+", tokens)][1:]
    line = next(line for line in out.splitlines() if line.startswith(f" {title}")).ljust(len(tokens))
    return [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _line(out: str, stage: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(f"  {stage} "))


def test_the_textbooks_choice(explain: Callable) -> None:
    out = explain("last_block", "--model", "mini")
    stages = [line.split("   ")[0].strip() for line in out.splitlines() if "each step" in line or "once" in line]
    assert stages == ["head", "final_norm", "block.3", "block.0 to block.2", "embeddings"]
    assert "■ trained" in _line(out, "block.3")
    assert "each step   the read one; keys, values: all" in _line(out, "block.3")
    frozen = _line(out, "block.0 to block.2")
    assert "□ frozen" in frozen
    assert "594,816   once" in frozen
    assert "Trained: 198,786 of 908,290 parameters" in out


def test_the_124m_model_needs_no_weights(explain: Callable, assets: Path) -> None:
    out = explain("last_block", "--model", "gpt2")
    assert "block.0 to block.10" in out
    assert "Trained: 7,090,946 of 124,441,346" in out
    assert "Trained: 2,668,066" in explain("lora", "--model", "gpt2")
    assert "Trained: 7,093,253" in explain("last_block", "--model", "gpt2", "--classes", "5")


@pytest.mark.parametrize("name", DECODERS)
def test_it_tells_what_a_run_does(run_here: Callable, tmp_path: Path, name: str) -> None:
    (record,) = run_here(strategy=[name], training__epochs=0, data__size=100)
    _told_by(record, name, "mini", tmp_path)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_it_tells_what_a_run_of_a_hub_model_does(explain: Callable, tmp_path: Path, family: str) -> None:
    name = f"hf:{save_small(tmp_path / family, family)}"
    model = Workspace(tmp_path).model(name)
    for strategy in DECODERS:
        declared = strategies.load(strategy).strategy.resolved_for(model.attention)
        found = lines(*split_without_tensors(declared, model, 2))
        assert sum(line.trained for line in found) == trainable_parameters(declared, model, 2)
    out = explain("last_block", "--model", name)
    assert "block.0 to block.1" in out
    assert ("[CLS]" in out) == (family == "bert")
    read = _row(out, "read")
    assert read.index("▲") == (0 if family == "bert" else len(read) - 1)
    assert set(_row(out, "it sees")) == {"●"}
    assert ("  final_norm" in out) == (family != "bert"), "an encoder that has none shows none"


def _told_by(record: Record, name: str, model_name: str, cache: Path) -> None:
    model = Workspace(cache).model(model_name)
    declared = strategies.load(name).strategy.resolved_for(model.attention)
    found = lines(*split_without_tensors(declared, model, 2))
    assert sum(line.trained for line in found) == record.model.trainable_parameters
    assert sum(line.parameters for line in found) == record.model.parameters
    lowest = [line.name.split(" to ")[0] for line in found if not line.once][-1]
    assert lowest == record.prefix.boundary
    assert (record.prefix.computed_tokens + record.prefix.reused_tokens > 0) == any(line.once for line in found)


def test_which_token_is_read_and_what_it_sees(explain: Callable) -> None:
    first = explain("first_token", "--model", "mini")
    assert _row(first, "read")[0] == "▲"
    assert _row(first, "it sees") == ["●", *"·" * (len(_row(first, "read")) - 1)]
    mean = explain("mean_pool", "--model", "mini")
    assert set(_row(mean, "read")) == {"▲"}
    assert "the read one" not in mean
    prefixed = explain("prefix_tuning", "--model", "mini")
    assert re.search(r"block\.0 to block\.3 +▣ adapted .* each step +all", prefixed)
    assert "each token also attends to 20 trained keys and values" in prefixed
    assert "20 trained vectors stand before the tokens of each row" in explain("prompt_tuning", "--model", "mini")
    assert set(_row(explain("no_causal_mask", "--model", "mini"), "it sees")) == {"●"}
    padded = explain("last_padded", "--model", "mini")
    assert [token for token, read in zip(_row(padded, "tokens"), _row(padded, "read"), strict=True) if read] == [
        PADDING
    ]
    assert "attended to like text" in padded


def test_a_strategy_of_ones_own(explain: Callable, run_cli: Callable, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    declare = "from harness import Input, Strategy\n"
    mine.write_text(
        f'"""The biases of block 1."""\n{declare}'
        "def build(backbone):\n"
        "    assert backbone.blocks[1].mlp.expand.bias.abs().sum() >= 0, 'it may look at tensors'\n"
        "    backbone.blocks[1].mlp.expand.bias.requires_grad_(True)\n"
        "strategy = Strategy(build=build, readout='first', attention='full', input=Input(pad_to=3))\n"
    )
    out = explain(str(mine), "--model", "mini")
    assert "The biases of block 1." in out
    assert "partly trained" in _line(out, "block.1")
    assert "512 of 198,272" in _line(out, "block.1")
    assert [("once" in _line(out, stage)) for stage in ("block.2", "block.1", "block.0")] == [False, False, True]
    assert len(_row(out, "tokens")) == 3
    mine.write_text(f"{declare}strategy = Strategy(trainable=('block.-1',), cacheable=False)")
    out = explain(str(mine), "--model", "mini")
    assert "once" not in out
    assert "may not be stored" in out
    mine.write_text(f"{declare}strategy = Strategy(build=lambda backbone: 1 / 0)")
    code, _, told = run_cli("explain", str(mine), "--model", "mini", results=None)
    assert (code, "ZeroDivisionError" in told) == (2, True)


def test_baselines_and_what_there_is_not(explain: Callable, run_cli: Callable) -> None:
    out = explain("tfidf")
    assert "a baseline" in out
    assert "depends on data" in out
    for arguments, told in (
        (("last_blok",), "did you mean 'last_block'?"),
        (("last_block", "--model", "gpt3"), "unknown model 'gpt3'"),
        (("last_block", "--classes", "1"), "classes"),
    ):
        code, _, problem = run_cli("explain", *arguments, results=None)
        assert (code, told in problem) == (2, True), problem


def test_without_the_vocabulary_words_stand_for_tokens(explain: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    out = explain("last_block", "--model", "gpt2")
    assert "Words stand for tokens here: GPT-2's vocabulary" in out
    assert _row(out, "read")[-1] == "▲"
