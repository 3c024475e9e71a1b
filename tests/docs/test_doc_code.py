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


def test_a_short_file_has_a_selector_phases_and_a_middle_layer(tmp_path: Path, run_here: Callable) -> None:
    blocks = [str(block.values[0]) for block in code_blocks("python")]
    (code,) = (one for one in blocks if "trainable=" in one and "phases=" in one and "readout_layer=" in one)
    assert len(code.strip().splitlines()) <= 15
    file = tmp_path / "mine.py"
    file.write_text(code)
    (record,) = run_here(strategy=str(file), training__epochs=1, precision="fp64", data__size=100)
    assert record.head_fit is not None
    assert record.phases == ("fit_head", "steps")
    layer = 128 * 128 + 128 + 128 * (2 + 1 + 4 + 1 + 2)  # a query; biases of norms, keys, values, outputs and the MLP
    assert record.model.trainable_parameters == 2 * layer + 128 + 128 + 258, "and the final norm's, the query, the head"
