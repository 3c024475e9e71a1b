"""`ftbench check-weights`: the model speaks, and the command says whether it is the pretrained one."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness import cli
from harness.model.named.continuation import GPT2_PROOF


def _check(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["ftbench", "check-weights", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.long
def test_a_model_that_answers_otherwise_is_told_from_the_pretrained_one(
    tmp_path: Path, assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(tmp_path)
    assert _check(monkeypatch, "--weights", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "This is not what the pretrained 124M model answers" in out
    spoken = next(line for line in out.splitlines() if line.startswith("continuation")).split(maxsplit=1)[1]
    monkeypatch.setattr(
        "harness.report.weights_check.GPT2_PROOF", replace(GPT2_PROOF, expected=ast.literal_eval(spoken))
    )
    assert _check(monkeypatch, "--weights", str(tmp_path)) == 0
    assert "the weights are loaded right" in capsys.readouterr().out


def test_mini_is_asked_in_its_own_language(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check(monkeypatch, "--model", "mini") == 0
    out = capsys.readouterr().out
    assert "what the pretrained mini answers: the weights are loaded right" in out
    assert "124M" not in out
    assert _check(monkeypatch, "--model", "mini", "--weights", "random") == 1
    assert "This is not what the pretrained mini answers" in capsys.readouterr().out


def test_what_is_expected_is_the_published_continuation() -> None:
    whole = GPT2_PROOF.prompt + GPT2_PROOF.expected
    assert whole.replace("\n", "/") == (
        "Every effort moves you forward.//The first step is to understand the importance of your work"
    )
