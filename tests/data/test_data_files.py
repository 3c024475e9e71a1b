"""Data files as people have them: what is read, what is said of it, what is refused."""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.config.schema import DataConfig
from harness.data.dataset import Dataset, load_dataset
from harness.data.reading.own_data import load_own_data
from harness.errors import UserError
from tests.support.data_files import Form, any_form, content_of, rows_of, write


def load(path: Path, **options: object) -> Dataset:
    return load_dataset(DataConfig.model_validate({"name": str(path), **options}), path.parent)


def rows_in(dataset: Dataset) -> list[tuple[str, str]]:
    texts = dataset.source.texts
    return list(zip(texts["text"], texts["label"], strict=True))


# As they are read without options


@pytest.mark.parametrize("compression", ["", ".gz", ".zip", ".zst"])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"])
def test_every_format_is_read(tmp_path: Path, rows: list, kind: str, compression: str) -> None:
    form = Form(kind=kind, delimiter="," if kind == ".csv" else "\t", compression=compression)
    assert rows_in(load(write(tmp_path, rows, form))) == rows


KINDS = {
    "the SMS collection as it is passed around": (
        Form(names=("v2", "v1"), label_first=True, encoding="cp1252"),
        ["text 'v2', label 'v1' (by their names)", "read as cp1252, not being UTF-8: for example '£' in line"],
    ),
    "GLUE": (Form(kind=".tsv", delimiter="\t", names=("sentence", "label")), ["text 'sentence', label 'label'"]),
    "product reviews": (Form(kind=".jsonl", names=("reviewText", "overall")), ["text 'reviewText', label 'overall'"]),
    "film reviews": (Form(names=("review", "sentiment")), ["text 'review', label 'sentiment'"]),
    "a header with spaces": (Form(spaces=True), ["text 'text', label 'label'"]),
    "a spreadsheet's export": (Form(delimiter=";"), ["separated by semicolons"]),
    "a spreadsheet's Unicode export": (Form(encoding="utf-16"), ["read as UTF-16, by its byte order mark"]),
    "no header": (
        Form(kind=".tsv", delimiter="\t", names=None, label_first=True),
        ["text '2', label '1' (by their place)", "no header line"],
    ),
    "further columns": (Form(extra=2), ["text 'text', label 'label'"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_file_is_read_and_what_was_found_is_said(tmp_path: Path, rows: list, name: str) -> None:
    form, said = KINDS[name]
    dataset = load(write(tmp_path, rows, form))
    assert rows_in(dataset) == rows
    for part in said:
        assert part in "; ".join(dataset.notes)


def test_what_was_found_stands_in_the_configuration(tmp_path: Path, rows: list) -> None:
    form = Form(kind=".tsv", delimiter="\t", names=None, label_first=True, encoding="utf-16")
    config = load(write(tmp_path, rows, form)).config
    assert (config.text_column, config.label_column, config.header) == ("2", "1", False)
    assert (config.encoding, config.quoting, config.split, config.pair) == ("utf-16", "minimal", "stratified", False)
    assert rows_in(load(tmp_path / "data.tsv", **config.model_dump(exclude={"name"}))) == rows


def test_unnamed_columns_at_the_end_are_none(tmp_path: Path, rows: list) -> None:
    lines = ["v1,v2,,,", *(f'{label},"{text}",,,' for text, label in rows)]
    (tmp_path / "spam.csv").write_text("\n".join(lines), encoding="cp1252")
    dataset = load(tmp_path / "spam.csv")
    assert rows_in(dataset) == rows
    assert "without a name" not in "; ".join(dataset.notes)
    lines[7] = lines[7].removesuffix(",,,") + ', the rest of it",,'
    (tmp_path / "spam.csv").write_text("\n".join(lines), encoding="cp1252")
    dataset = load(tmp_path / "spam.csv")
    assert rows_in(dataset) == rows
    assert "1 row(s) go on in columns without a name, which are not used" in dataset.notes


def test_a_quotation_mark_that_quotes_nothing_loses_no_row(tmp_path: Path, rows: list) -> None:
    marks = ['"', "", "", "", ""]
    lines = [f"{label}\t{marks[number % 5]}{text}" for number, (text, label) in enumerate(rows)]
    (tmp_path / "sms").write_text("\n".join(lines))
    dataset = load(tmp_path / "sms")
    assert [text.lstrip('"') for text, _ in rows_in(dataset)] == [text for text, _ in rows]
    assert "quotation marks are part of the texts" in dataset.notes
    assert dataset.config.quoting == "none"


def test_quotation_marks_that_quote_are_no_part_of_a_text(tmp_path: Path, rows: list) -> None:
    """A text of two lines, each with a comma: without the marks they would look like two rows."""
    texts = [(f"{text}, first\nsecond, {number}", label) for number, (text, label) in enumerate(rows)]
    dataset = load(write(tmp_path, texts, Form()))
    assert rows_in(dataset) == texts
    (tmp_path / "none.tsv").write_text("text\tlabel\n" + "".join(f'"{text}"\t{label}\n' for text, label in rows))
    unquoted = [f'"{text}"' for text, _ in rows]
    assert [text for text, _ in rows_in(load(tmp_path / "none.tsv", quoting="none"))] == unquoted


@pytest.mark.parametrize(
    ("before", "after"),
    [("\n   \n", ""), (";\n", ";\n;\n"), ("sep=;\r\n", ""), ('"sep=;"\n\n', "\n")],
    ids=["blank lines", "rows without values", "a spreadsheet's separator", "both"],
)
def test_lines_that_hold_no_data_are_skipped(tmp_path: Path, rows: list, before: str, after: str) -> None:
    lines = ["text;label", *(f'"{text}; again";{label}' for text, label in rows)]
    (tmp_path / "data.csv").write_text(before + "\n".join(lines) + "\n" + after, newline="")
    assert rows_in(load(tmp_path / "data.csv")) == [(f"{text}; again", label) for text, label in rows]


def test_bytes_of_parquet_are_text(tmp_path: Path, rows: list) -> None:
    """Some writers don't mark text as such."""
    path = tmp_path / "data.parquet"
    pd.DataFrame([(text.encode(), label.encode()) for text, label in rows], columns=["text", "label"]).to_parquet(path)
    assert rows_in(load(path)) == rows
    pd.DataFrame({"text": [text.encode("utf-16") for text, _ in rows], "label": 1}).to_parquet(path)
    with pytest.raises(UserError, match="'text' holds bytes that are no UTF-8"):
        load(path)


# Encodings and archives


def test_another_encoding_is_read_by_name(tmp_path: Path) -> None:
    rows = [(f"жёлтый {number}", "аб"[number % 2]) for number in range(20)]
    path = write(tmp_path, rows, Form(encoding="koi8-r"))
    assert rows_in(load(path, encoding="koi8-r")) == rows


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gb18030", "shift_jis"])
def test_an_encoding_that_is_not_western_is_asked_for(tmp_path: Path, encoding: str) -> None:
    """Some of their bytes happen to be UTF-8."""
    texts = ["это хороший фильм", "очень плохо"] if encoding in ("cp1251", "koi8-r") else ["这部电影很好看", "质量不好"]
    if encoding == "shift_jis":
        texts = ["これはとても良い映画です", "悪い"]
    path = write(tmp_path, [(f"{texts[n % 2]} {n}", "ab"[n % 2]) for n in range(40)], Form(encoding=encoding))
    with pytest.raises(UserError, match="line 2: neither UTF-8 nor a western encoding"):
        load(path)
    assert rows_in(load(path, encoding=encoding))[3] == (f"{texts[1]} 3", "b")


def test_a_few_bytes_that_happen_to_be_utf8_are_no_utf8(tmp_path: Path) -> None:
    """As "Ì©" is."""
    rows = [(f"£ {number} caf{'Ì©' if number == 7 else 'é'}", "ab"[number % 2]) for number in range(20)]
    dataset = load(write(tmp_path, rows, Form(encoding="cp1252")))
    assert rows_in(dataset) == rows
    assert "read as cp1252, not being UTF-8: for example '£' in line 2" in dataset.notes


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_of_any_method(tmp_path: Path, method: int) -> None:
    path = tmp_path / "data.csv.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("data.csv", "text,label\n" + "a text,a\nanother,b\n" * 99)
    content = bytearray(path.read_bytes())
    content[50:60] = b"0123456789"
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="can't be unpacked"):
        load(path)


# What is odd is said


def test_a_class_with_one_text_is_named(tmp_path: Path, rows: list) -> None:
    dataset = load(write(tmp_path, [*rows, ("a fraud", "rare")], Form()))
    assert "classes with fewer than 3 texts: 'rare' (1)" in "; ".join(dataset.notes)
    shares = [Counter(part["label"])["kind0"] / len(rows) for part in dataset.split.values()]
    assert shares == pytest.approx([0.35, 0.05, 0.1], abs=0.02)


@pytest.mark.parametrize(("numbers", "is_said"), [(0.4, False), (0.6, True)])
def test_a_column_of_numbers_is_told(tmp_path: Path, rows: list, numbers: float, is_said: bool) -> None:
    count = int(numbers * len(rows))
    texts = [*(f"{number / 8}" for number in range(count)), *(text for text, _ in rows[count:])]
    dataset = load(write(tmp_path, list(zip(texts, (label for _, label in rows), strict=True)), Form()))
    said = f"texts that are numbers: {count:,} of {len(rows):,}, such as '0.0'; data.text_column names another column"
    assert (said in dataset.notes) == is_said
    assert any("are numbers" in note for note in dataset.notes) == is_said


def test_contradictions_are_counted(tmp_path: Path, rows: list) -> None:
    dataset = load(write(tmp_path, [*rows, (rows[0][0], "kind1"), (rows[0][0], "kind0")], Form()))
    assert "contradictions: 1 (texts with several labels), in 3 rows" in "; ".join(dataset.notes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("yes", "no", "-"), "'-' (16)"),
        (("yes", "no", "-1"), "'-1' (16)"),
        (("1", "0", "-1"), None),
        (("+", "0", "-"), None),
        (("None", "no", "yes"), None),
    ],
    ids=str,
)
def test_a_class_that_may_be_no_class_is_named(tmp_path: Path, rows: list, labels: tuple, said: str | None) -> None:
    lines = [(text, labels[number % 3]) for number, (text, _) in enumerate(rows)]
    notes = "; ".join(load(write(tmp_path, lines, Form())).notes)
    assert (f"classes that may stand for a missing label: {said}" in notes) == (said is not None)
    assert said or "missing" not in notes


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("several.jsonl", '{"text": "a", "labels": ["x", "y"]}', ["'labels'", "several labels a text"]),
        ("joined.csv", "text,label\na,x\nb,y\nc,x|y\n", ["'label'", "several labels", "'x|y'"]),
        ("tokens.jsonl", '{"tokens": ["a", "b"], "text": "a b", "label": ["O", "O"]}', ["'label'", "several"]),
        (
            "tags.csv",
            "text,label\n" + "".join(f"w{n}{' w' * (n % 3)},O{' B' * (n % 3)}\n" for n in range(20)),
            ["'label'", "each word"],
        ),
        (
            "names.tsv",
            "".join(f"w{n}\t{'B-PER' if n % 3 else 'O'}\n" for n in range(20)),
            ["'2'", "a label for each word of the text, such as 'B-PER'"],
        ),
        ("lists.csv", 'text,label\na,"[1, 2]"\nb,[1]\n', ["'label'", "several labels", "'[1, 2]'"]),
        ("score.csv", "text,label\n" + "".join(f"w{n},{n / 7:.3f}\n" for n in range(40)), ["'label'", "regression"]),
        ("ids.csv", "text,label\n" + "".join(f"w{n},id{n}\n" for n in range(40)), ["'label'", "no classes"]),
        ("two.csv", "review,content,label\na,b,x\n", ["may be the text", "'review' ('a')", "data.text_column"]),
        ("pipes.csv", "text|label\na|x\nb|y\n", ["one column only, 'text|label' ('a|x')", "a tab between them"]),
        ("words.txt", "x B-P\nx B-P\ny B-P\ny B-P\n", ["one column only"]),
        ("nothing.json", "{}", ["one column only, without a name"]),
        ("folder.zip", "no archive", ["can't be unpacked"]),
        ("data.csv.gz", "no archive", ["can't be unpacked"]),
        ("data.csv.zst", "no archive", ["can't be unpacked"]),
        ("data.parquet", "no parquet", ["no parquet file"]),
        ("data.json", '[{"text": "a",', ["line 1", "no array of objects"]),
        ("pretty.json", '{\n "text": "a"\n}', ["line 1", "no JSON object on one line"]),
        ("items.json", '[{"text": "a", "label": "x"}, 3]', ["item 2", "object"]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value and len(value) < 20 else "",
)
def test_what_is_no_classification_is_refused(tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as refused:
        load(tmp_path / name)
    for part in [name, *parts]:
        assert part in str(refused.value)


# Any file


def test_forms_of_any_kind_give_back_what_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for number in range(150):
        form, rows = any_form(random), rows_of(random, int(random.integers(12, 60)), classes=int(random.integers(2, 5)))
        path = write(tmp_path / str(number), rows, form)
        data = load_own_data(DataConfig(name=str(path)))
        assert list(zip(data.texts["text"], data.texts["label"], strict=True)) == rows, form


def test_damaged_files_are_read_or_refused_in_words(tmp_path: Path) -> None:
    """Bytes are changed, lost, doubled or exchanged; the ending may lie."""
    random = np.random.default_rng(2)
    read = 0
    for number in range(500):
        form = any_form(random)
        form = replace(form, compression="") if random.integers(3) else form
        content = bytearray(content_of(rows_of(random, int(random.integers(0, 30))), form))
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(len(content) + 1))
            match random.integers(5):
                case 0:
                    del content[at:]
                case 1:
                    content[at : at + 1] = bytes([random.integers(256)])
                case 2:
                    content[at:at] = random.choice([b'"', b"\n", b"\r", b"\0", b",", b"{", b"\xff\xfe", b"\xc3"])
                case 3:
                    content[at:at] = content[: random.integers(200)]
                case _:
                    del content[at : at + int(random.integers(20))]
        ending = form.ending if random.integers(8) else any_form(random).ending
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(bytes(content))
        try:
            load_own_data(DataConfig(name=str(path)))
            read += 1
        except UserError:
            pass
        path.unlink()
    assert 50 < read < 450, "some are read, some are refused"
