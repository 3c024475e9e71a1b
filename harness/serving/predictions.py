"""What `ftbench predict` and `ftbench export` do: where the texts come from, and what is printed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.config.schema import Precision
from harness.data.reading.table import is_text
from harness.errors import UserError
from harness.results import saved_classifier
from harness.results.names import printable
from harness.serving.classifier import Classifier, Predictions
from harness.serving.export.folder import Form, write_folder

USAGE = 'expected `ftbench predict "a text"`, --file FILE, or lines from a pipe'


def predict(folder: Path, cache: Path, texts: list[str], file: Path | None, jsonl: bool) -> None:
    """Print one line for each text: label, probability and the text; with `jsonl` a JSON object.

    folder: of the classifier. texts, file: where texts come from; without either, the standard input.
    """
    texts = _read_texts(texts, file, jsonl)
    predictions = _load(folder, cache).predict(texts)
    if predictions.cut:
        message = f"{predictions.cut} of {len(texts)} texts were longer than a row may be, and were cut."
        print(message, file=sys.stderr)
    for line in _format(texts, predictions, jsonl):
        print(line)


def export(console: Console, folder: Path, cache: Path, target: Path, form: Form) -> None:
    """Write the classifier of `folder` into `target`."""
    name = write_folder(_load(folder, cache, "fp32"), folder, target, form)
    console.print(f"Wrote {escape(str(target))}: {name}, a tokenizer, and a model card in README.md.", highlight=False)


def _load(folder: Path, cache: Path, precision: Precision | None = None) -> Classifier:
    """Load it; where it runs code from outside the harness, say so first."""
    about = saved_classifier.read(folder)
    if about.strategy_source.is_outside:
        print(f"strategy {about.strategy} {about.strategy_source.warning}", file=sys.stderr)
    return Classifier.load(folder, cache, precision)


def _read_texts(given: list[str], file: Path | None, jsonl: bool) -> list[str]:
    """Raises UserError, with the number of the line, for a line that is no text."""
    if given and file:
        raise UserError(f"both texts and --file {str(file)!r} are given: {USAGE}.")
    if given:
        _check_encoding(given)
        return given
    if file is None and sys.stdin.isatty():
        raise UserError(f"no text is given: {USAGE}.")
    name = "the input" if file is None else f"file {str(file)!r}"
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
    except OSError as error:
        raise UserError(f"{name} can't be read ({error.strerror}): {USAGE}.") from error
    # Not str.splitlines: it also cuts at characters that may stand in a text, such as U+2028.
    lines = [line.rstrip("\r\n") for line in io.StringIO(_decode(name, content), newline="")]
    if not lines:
        raise UserError(f"{name} is empty: {USAGE}.")
    return [_parse_line(name, number, line, jsonl) for number, line in enumerate(lines, start=1)]


def _parse_line(name: str, number: int, line: str, jsonl: bool) -> str:
    text: object = line
    if jsonl:
        try:
            parsed = json.loads(line)
        except ValueError as error:  # for numbers with thousands of digits, too
            raise UserError(f'{name}, line {number}: no JSON ({error}); expected {{"text": "..."}}.') from error
        text = parsed.get("text") if isinstance(parsed, dict) else None
        if not isinstance(text, str):
            raise UserError(f'{name}, line {number}: no text in it; expected {{"text": "..."}}.')
        _check_encoding([text])
    if not text.strip():
        raise UserError(f"{name}, line {number}: the text is empty; remove the line, or fill it.")
    return text


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8.") from error


def _check_encoding(texts: list[str]) -> None:
    for number, text in enumerate(texts, start=1):
        if not is_text(text):
            raise UserError(f"text {number} of {len(texts)} is not UTF-8: give it as UTF-8.")


def _format(texts: list[str], predictions: Predictions, jsonl: bool) -> list[str]:
    rows = zip(texts, predictions.labels, predictions.confidence.tolist(), strict=True)
    if jsonl:
        return [
            json.dumps({"text": text, "label": label, "probability": probability}, ensure_ascii=False)
            for text, label, probability in rows
        ]
    return [
        f"{printable(label)}\t{probability:.4f}\t{printable(' '.join(text.split()))}"
        for text, label, probability in rows
    ]
