"""The code of docs/serving.md that uses an export: an ASGI app behind a server, and the loading of the class."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn

from harness.serving.classifier import Classifier
from tests.support.documents import code_blocks

TEXTS = ["You have won a free prize, call now", "see you at home"]


def _code(part: str) -> str:
    (code,) = (text for block in code_blocks("python") if part in (text := str(block.values[0])))
    return code


@contextmanager
def _served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_documented_code_gives_the_probabilities(
    run_here: Callable, run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(strategy=["last_block"], save=True, data__size=100, training__epochs=1)
    saved, cache = tmp_path / "results" / "classifier", tmp_path / "cache"
    expected = Classifier.load(saved, cache, "fp32").predict(TEXTS).probabilities
    for folder, form in (("my_classifier", "transformers"), ("my_onnx", "onnx")):
        arguments = (str(tmp_path / folder), "--format", form, "--classifier", str(saved), "--cache", str(cache))
        assert run_cli("export", *arguments, results=None)[0] == 0
    monkeypatch.chdir(tmp_path)

    names: dict[str, Any] = {}
    exec(_code('AutoModelForSequenceClassification.from_pretrained("my_classifier")'), names)
    batch = names["tokenizer"](TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert names["model"](**batch).logits.softmax(1).detach().numpy() == pytest.approx(expected, abs=1e-4)

    Path("server.py").write_text(_code("async def app(scope, receive, send)"))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with _served("server:app") as address:
            answer = requests.post(address, json={"texts": TEXTS * 1_000}, timeout=60)  # arrives in several pieces
            assert answer.headers["content-type"] == "application/json"
            found = [[row["ham"], row["spam"]] for row in answer.json()]
            assert found == [pytest.approx(row, abs=1e-4) for row in expected.tolist()] * 1_000
            assert requests.post(address, data="no JSON", timeout=60).status_code == 500
    finally:
        sys.modules.pop("server", None)
