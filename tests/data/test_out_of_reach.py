"""What is published but can't be downloaded, and assets that can't be used."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results.store import Store
from tests.support.runs import assert_refused

DEAD = "http://127.0.0.1:9"  # nobody listens: refused at once


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a proxy that nobody runs."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.lower(), DEAD)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data": "sms_spam"}, ["DATA=sms_spam", "SMS Spam Collection", "DATA=synthetic", "FTBENCH_ASSETS"]),
        ({"model": "gpt2"}, ["MODEL=gpt2", "vocabulary", "MODEL=mini", "FTBENCH_ASSETS"]),
    ],
    ids=str,
)
def test_what_is_named_but_out_of_reach(refused: Callable, monkeypatch, options: dict, parts: list[str]) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    told = refused(**options)
    for part in parts:
        assert part in told


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_auto_takes_what_is_embedded_and_says_why(run_cli: Callable, monkeypatch, tmp_path: Path, weights: str) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    options = ["--weights", weights, "--set", "data.size=50", "--strategy", "head_only", "--epochs", "0"]
    code, out, told = run_cli("run", *options, "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    first_lines = out.partition("[1/1]")[0]
    assert "mini  (auto: GPT-2's vocabulary" in first_lines
    assert "synthetic  (auto: the SMS Spam Collection can't be downloaded" in first_lines
    (record,) = Store(tmp_path / "results").all()
    assert record.choices["data"].startswith("auto: the SMS Spam Collection")
    assert record.choices["model"].startswith("auto: GPT-2's vocabulary")
    assert record.model.weights == "pretrained"


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"HF_ENDPOINT": DEAD}, id="unreachable"),
        pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline", marks=pytest.mark.long),
    ],
)
def test_pretrained_weights_out_of_reach_are_told_soon(
    assets: Path, ftbench: Callable, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    if (assets / "models" / "gpt2").exists():
        pytest.skip("the pretrained weights are at hand")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    done = ftbench("run", "--model", "gpt2", "--weights", "pretrained", "--data", "synthetic")
    assert time.monotonic() - started < 20
    assert_refused(done.returncode, done.stdout, done.stderr)
    for part in ("WEIGHTS=pretrained", "gpt2", "hub could not be reached", "WEIGHTS=random", "FTBENCH_ASSETS"):
        assert part in done.stderr


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_assets_that_are_no_folder(refused: Callable, monkeypatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path / name))
    told = refused()
    assert "FTBENCH_ASSETS=" in told
    assert str(tmp_path / name) in told
    assert "unset it" in told


def test_a_damaged_copy_of_a_published_file(refused: Callable, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "sms_spam").mkdir()
    (tmp_path / "sms_spam" / "SMSSpamCollection").write_text("ham\thello\n")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path))
    told = refused(data="sms_spam")
    assert "sha256" in told
    assert "replace or delete it" in told
