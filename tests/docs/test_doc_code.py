"""Code in the documents compiles and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.documents import code_blocks


@pytest.mark.parametrize("code", code_blocks("python"))
def test_python_in_documents_compiles_and_a_strategy_runs(code: str, tmp_path: Path, run_here: Callable) -> None:
    try:
        compile(code, "document", "exec")
    except SyntaxError:
        compile(f"{{{code}}}", "document", "exec")  # an entry of a dictionary
    if "strategy = Strategy(" in code:
        file = tmp_path / "mine.py"
        file.write_text(code)
        (record,) = run_here(strategy=str(file), training__epochs=1)
        assert record.status == "ok", record.error
