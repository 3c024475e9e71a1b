"""Requests to stop, and how threads wait: what a process sets up before it does anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.distributed.signals import HANDLED, StopSignals
from harness.launch.libraries import CUBLAS_WORKSPACE, SPIN_COUNT, set_variables, variables
from tests.support.runs import ROOT

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture
def stop_signals() -> Iterator[StopSignals]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    signals = StopSignals()
    signals.listen()
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_stops_at_once(stop_signals: StopSignals, number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_while_postponed_a_signal_is_only_noted(stop_signals: StopSignals) -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt), stop_signals.postponed() as stop_requested:  # noqa: PT012
        seen.append(stop_requested())
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        seen.append(stop_requested())
    assert seen == [False, True]
    with stop_signals.postponed() as stop_requested:
        assert not stop_requested(), "an earlier request was answered"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_threads_sleep_soon_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in POLICIES:
        monkeypatch.delenv(name, raising=False)
    assert variables()["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
    for name, value in (("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "5")):
        with monkeypatch.context() as user:
            user.setenv(name, value)
            set_variables()
            assert {name: os.environ[name] for name in POLICIES if name in os.environ} == {name: value}
            assert {name: value for name, value in variables().items() if name in POLICIES} == {name: value}


def test_products_of_a_gpu_have_a_fixed_workspace_unless_the_user_sets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert variables()["CUBLAS_WORKSPACE_CONFIG"] == CUBLAS_WORKSPACE
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_variables()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_the_command_loads_no_pytorch_before_it_has_set_what_its_libraries_read() -> None:
    code = "import sys, harness.cli, harness.launch.libraries; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
