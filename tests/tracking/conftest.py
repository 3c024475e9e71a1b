"""A suite of five runs, two of which diverge, logged to all trackers that are installed, and what would leave the
machine meanwhile."""

from __future__ import annotations

import io
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.results.record import Record
from harness.results.store import Store
from harness.tracking.trackers import NAMES

INSTALLED = [name for name in NAMES if find_spec(name)]

SUITE = """
model: {name: mini}
data: {name: synthetic, size: 120}
training: {epochs: 2}
seed: [0, 1]
rows:
  - {name: steady, strategy: last_block, training: {keep: best}}
  - {name: too fast, strategy: head_only, optimizer: {learning_rate: 1.0e+38}}
  - {name: trivial, strategy: majority}
"""
SECRET = "a-secret-of-the-user"
# Of the user; a test begins without them.
VARIABLES = ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_DIR", "TRACKIO_DIR", "TRACKIO_SPACE_ID")


@dataclass(frozen=True)
class Tracked:
    """folder: with results and cache. code: of the command. printed: on the console. requests: for other machines."""

    folder: Path
    code: int
    printed: str
    requests: list[bytes]

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    @property
    def tracking(self) -> Path:
        return self.folder / "results" / "tracking"

    def record(self, strategy: str, seed: int = 0) -> Record:
        (record,) = [one for one in self.store.all() if (one.strategy, one.seed) == (strategy, seed)]
        return record


def run_tracked(folder: Path, track: str | None, **options: object) -> tuple[int, str]:
    """The code of the command and what it printed. folder: with a suite's file, unless options describe one."""
    console = Console(width=200, record=True, file=io.StringIO())
    suite = load_suite(None if options else folder / "my suite.yaml", options, [])
    code = commands.run_suite(
        console, suite, folder / "results", folder / "cache", force=False, quiet=True, track=track
    )
    return code, console.export_text()


class _Proxy(socketserver.ThreadingTCPServer):
    """What libraries in any language ask for the network; it lets nothing through."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        self.server.requests.append(self.rfile.readline())


@pytest.fixture(scope="package")
def proxy() -> Iterator[list[bytes]]:
    """The requests that would have left the machine."""
    with _Proxy() as server, pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for variable in (name, name.lower()):
                patch.setenv(variable, f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("NO_PROXY", "no_proxy", *VARIABLES):
            patch.delenv(name, raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.requests
        server.shutdown()


@pytest.fixture(scope="package")
def tracked(tmp_path_factory: pytest.TempPathFactory, proxy: list[bytes]) -> Tracked:
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "my suite.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTBENCH_SECRET_TOKEN", SECRET)
        code, printed = run_tracked(folder, ",".join(INSTALLED))
    return Tracked(folder, code, printed, list(proxy))
