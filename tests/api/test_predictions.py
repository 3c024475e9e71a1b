"""`comparison.predictions`: of a row of the table, whatever the suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from harness import Comparison, UserError, compare
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset


def _texts(size: int = 80) -> pd.DataFrame:
    frame = load_dataset(DataConfig(name="synthetic", size=size), Path()).source.texts
    return frame.assign(label=frame["label"] == "spam")


def _compare(folder: Path, *given: Any, **options: Any) -> Comparison:
    places = {"results": folder / "results", "cache": folder / "cache"}
    return compare(*given, **{"model": "mini", "epochs": 1, "quiet": True, **places, **options})


def _assert_each_text_once(found: pd.DataFrame, comparison: Comparison, row: str) -> None:
    """By table and seed, with the accuracy of the row."""
    by_table = found.get("table", pd.Series("", found.index))
    assert not found.assign(table=by_table).duplicated(["table", "seed", "index"]).any()
    table = comparison.table
    shown = table[table.iloc[:, 1 if "table" in table else 0] == row]
    assert sorted((found["label"] == found["predicted"]).groupby(by_table).mean()) == pytest.approx(
        sorted(shown["test"])
    )


def test_rows_of_a_suite_have_its_names(tmp_path: Path) -> None:
    rows = [{"name": "one block", "strategy": "last_block"}, {"name": "none", "strategy": "head_only"}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"rows": rows}))
    made = _compare(tmp_path, _texts(), config=tmp_path / "suite.yaml")
    _assert_each_text_once(made.predictions("one block"), made, "one block")
    with pytest.raises(UserError, match="unknown strategy 'last_block' of this comparison: Known are one block, none"):
        made.predictions("last_block")


def test_a_sweep_has_one_record_for_each_run_and_a_row_for_its_best_rate(tmp_path: Path) -> None:
    made = _compare(tmp_path, _texts(), "head_only", tune="lr")
    assert len({record.run_id for record in made.records}) == len(made.records)
    swept = next(name for name in made.table["strategy"] if name != "head_only")
    for row in ("head_only", swept):
        _assert_each_text_once(made.predictions(row), made, row)


def test_of_several_tables_a_column_names_each(tmp_path: Path) -> None:
    sized = _compare(tmp_path, _texts(), "head_only", sizes="20,all")
    found = sized.predictions("head_only")
    assert found["table"].unique().tolist() == sized.table["table"].unique().tolist()
    assert found["label"].dtype == bool
    _assert_each_text_once(found, sized, "head_only")
    several = _compare(tmp_path, ["synthetic", "negation"], "majority", settings={"data.size": 60})
    found = several.predictions("majority")
    assert found["table"].nunique() == 2
    _assert_each_text_once(found, several, "majority")


def test_labels_come_back_with_the_blanks_around_them(tmp_path: Path) -> None:
    texts = _texts()
    texts["label"] = texts["label"].map({True: " spam", False: "ham\N{NO-BREAK SPACE}"})
    made = _compare(tmp_path, texts, "head_only")
    found = made.predictions("head_only")
    assert found["label"].tolist() == texts["label"].iloc[found["index"]].tolist()
    assert set(found["predicted"]) <= set(made.best.classes_) == set(texts["label"])


def test_pairs_of_a_frame_are_encoded_as_pairs(tmp_path: Path) -> None:
    pairs = _texts().rename(columns={"text": "premise"}).assign(hypothesis="it is spam")
    made = _compare(tmp_path, pairs, "head_only")
    assert made.records[0].config["data"]["pair"]
    assert len(made.best.predict(["a text\tit is spam"])) == 1
    found = made.predictions("head_only")
    assert found["label"].tolist() == pairs["label"].iloc[found["index"]].tolist()


def test_files_that_are_gone_are_named(tmp_path: Path) -> None:
    made = _compare(tmp_path, _texts(), "majority")
    (tmp_path / "results").rename(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"the predictions of 'majority-.*' are gone from .*results=\.\.\. if the folder"
    ):
        made.predictions("majority")
