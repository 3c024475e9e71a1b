"""Tokenizers: GPT-2's published one, the small one that ships with the `mini` model, and those of the hub's models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

from harness.data.fetch import Remote, fetch
from harness.data.hub_files import is_hub, locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
MINI_RANKS = Path(__file__).parents[1] / "assets" / "mini.tiktoken"
_PUBLISHED = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"


def _mirrored(name: str, sha256: str) -> Remote:
    """A vocabulary file under the name that tiktoken gives it in its own cache folder."""
    url = _PUBLISHED + name
    return Remote(f"GPT-2's vocabulary ({name})", f"tiktoken/{hashlib.sha1(url.encode()).hexdigest()}", url, sha256)


VOCABULARY = _mirrored("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")
ENCODER = _mirrored("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783")
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


class Tokenizer(Protocol):
    """pad_token: what `pad_to` fills rows up with; None where the tokenizer knows none."""

    @property
    def pad_token(self) -> int | None: ...

    def encode_ordinary(self, text: str) -> list[int]:
        """Its tokens alone: no text means a special token."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        """special_tokens: each text as the model expects a whole one, begun and ended as it was in pretraining."""

    def cut(self, row: list[int], limit: int) -> list[int]:
        """Of a row that is longer the first `limit` tokens, ended as the row was."""


class BytePairs(tiktoken.Encoding):
    """GPT-2's own: no special token begins or ends a text, and end-of-text pads."""

    @property
    def pad_token(self) -> int:
        return self.encode_single_token(END_OF_TEXT)

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        return self.encode_ordinary_batch(texts)

    def cut(self, row: list[int], limit: int) -> list[int]:
        return row[:limit]


class HubTokenizer:
    """One of `transformers`', which knows which special tokens begin and end a text ([CLS], [SEP], <s>)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self._ending = special[::-1].index(0) if 0 in special else 0

    @property
    def pad_token(self) -> int | None:
        return self._tokenizer.pad_token_id

    def encode_ordinary(self, text: str) -> list[int]:
        return self.encode_rows([text], special_tokens=False)[0]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        # What looks like a special token in a text is text.
        encoded = self._tokenizer(
            texts,
            add_special_tokens=special_tokens,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def cut(self, row: list[int], limit: int) -> list[int]:
        ending = row[len(row) - self._ending :] if self._ending < limit else []
        return row if len(row) <= limit else [*row[: limit - len(ending)], *ending]


def load_tokenizer(model: str, cache: Path, assets: Path | None) -> Tokenizer:
    """The tokenizer of the model `model`.

    Raises harness.data.fetch.NotAvailable where its vocabulary can't be had.
    """
    if is_hub(model):
        from transformers import AutoTokenizer

        path = locate(model, cache)
        where = (path, None) if path.is_dir() else (path.parent, path.name)
        return HubTokenizer(AutoTokenizer.from_pretrained(where[0], gguf_file=where[1], trust_remote_code=False))
    if model == "mini":
        ranks = load_tiktoken_bpe(str(MINI_RANKS))
    else:
        files = [fetch(remote, cache, assets) for remote in (VOCABULARY, ENCODER)]
        ranks = data_gym_to_mergeable_bpe_ranks(*(str(file) for file in files))
    return BytePairs(model, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})
