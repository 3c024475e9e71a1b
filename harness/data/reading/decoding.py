"""Bytes of a text file as text: which encoding, and by what it was recognised."""

from __future__ import annotations

import codecs
import io
import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import TextIO

from harness.errors import UserError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_ASCII = re.compile(r"[^\x00-\x7f]")
_ASCII, _ASCII_LETTERS = bytes(range(128)), string.ascii_letters.encode()
_BY_CHANCE = 10  # bytes of another encoding for each of their sequences that happens to be UTF-8, at least


@dataclass(frozen=True)
class TextFile:
    """The content of a text file in its encoding. note: what to say of an encoding that was found by looking."""

    content: bytes
    encoding: str
    note: str | None = None

    def open(self) -> TextIO:
        """Its lines with their ends as they are, decoded as they are read."""
        return io.TextIOWrapper(io.BytesIO(self.content), self.encoding, newline="")


def decode(name: str, content: bytes, encoding: str) -> TextFile:
    """encoding: "auto": that of the byte order mark, else UTF-8, else cp1252 or latin-1 where hardly a byte speaks for
    UTF-8, and the letters for a western language.

    Raises UserError, with the line, for bytes that the encoding does not have, or if none is sure.
    """
    if encoding != "auto":
        return _checked(name, content, encoding)
    marked = next((marked for mark, marked in _MARKS if content.startswith(mark)), None)
    if marked:
        note = None if marked == "utf-8-sig" else f"read as {marked.upper()}, by its byte order mark"
        return _checked(name, content, marked, note)
    if content.count(0) > len(content) / 4:  # as in UTF-16 without a mark
        raise UserError(
            f"data file {name!r}, line {_line(content, content.index(0))}: NUL bytes, so this is no text in UTF-8; "
            'save it as UTF-8, or name what it is, such as SET="data.encoding=utf-16-le".'
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return _legacy(name, content, error)
    return TextFile(content, "utf-8")


def _legacy(name: str, content: bytes, error: UnicodeDecodeError) -> TextFile:
    """Bytes that are not UTF-8 as one of the encodings with a byte for each character."""
    line = _line(content, error.start)
    counts = Counter("\udc80" <= one <= "\udcff" for one in _NO_ASCII.findall(content.decode(errors="surrogateescape")))
    try:
        text, encoding = content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        text, encoding = content.decode("latin-1"), "latin-1"
    example = text[error.start]  # a byte is one character
    if counts[True] > counts[False] and _is_unlike_western(content):
        raise UserError(
            f"data file {name!r}, line {line}: neither UTF-8 nor a western encoding, in which most letters would have "
            f"accents, as in {example!r}; save it as UTF-8, or name its encoding, such as "
            'SET="data.encoding=cp1251" (or koi8-r, gb18030, big5, shift_jis, euc-kr).'
        )
    if counts[False] * _BY_CHANCE > counts[True]:
        raise UserError(
            f"data file {name!r}, line {line}: not UTF-8 ({error.reason}), though other lines are; save it as UTF-8, "
            'or name its encoding, such as SET="data.encoding=cp1252".'
        )
    return TextFile(content, encoding, f"read as {encoding}, not being UTF-8: for example {example!r} in line {line}")


def _is_unlike_western(content: bytes) -> bool:
    """Whether more bytes are beyond ASCII than are its letters."""
    return len(content.translate(None, _ASCII)) > len(content) - len(content.translate(None, _ASCII_LETTERS))


def _checked(name: str, content: bytes, encoding: str, note: str | None = None) -> TextFile:
    found = TextFile(content, encoding, note)
    try:
        found.open().read()
    except (LookupError, ValueError, TypeError) as error:
        if isinstance(error, UnicodeError):
            raise UserError(
                f"data file {name!r}, line {_line(content, getattr(error, 'start', 0))}: not {encoding} "
                f'({getattr(error, "reason", error)}); name its encoding with SET="data.encoding=...", or save it as '
                "UTF-8."
            ) from error
        raise UserError(
            f"data.encoding={encoding!r}: there is no such text encoding; expected auto, utf-8, utf-16, cp1252, "
            "latin-1 or another that Python knows."
        ) from error
    return found


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1
