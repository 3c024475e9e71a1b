"""Tokenizers: GPT-2's, the small one that ships with the `mini` model, and those of hub models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

from harness.data.downloads import Remote, fetch
from harness.data.libraries import import_transformers, one_line
from harness.data.model_files.hub import is_hub, locate
from harness.data.model_files.model_folder import has_tokenizer
from harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
MINI_RANKS = Path(__file__).parents[1] / "assets" / "mini.tiktoken"
_PUBLISHED = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"


def _vocabulary_file(name: str, sha256: str) -> Remote:
    """A file of GPT-2's vocabulary, under the name that tiktoken gives it in its own cache folder."""
    url = _PUBLISHED + name
    return Remote(f"GPT-2's vocabulary ({name})", f"tiktoken/{hashlib.sha1(url.encode()).hexdigest()}", url, sha256)


VOCABULARY = _vocabulary_file("vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5")
ENCODER = _vocabulary_file("encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783")
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# Characters of a text that are looked at: tiktoken crashes on a run of more than a million blanks. A token has at most
# 128 bytes, so these are at least 3,906 tokens, beyond any row of 1,024.
_LONGEST_TEXT = 500_000


class Tokenizer(Protocol):
    """Text to token ids and back, as one model expects them."""

    @property
    def pad_token(self) -> int | None:
        """What rows are padded with; None where the tokenizer has none."""
        ...

    @property
    def beginning(self) -> list[int]:
        """The special tokens before a text."""
        ...

    @property
    def size(self) -> int:
        """One more than the highest token id."""
        ...

    def encode_ordinary(self, text: str, /) -> list[int]:
        """The text's own tokens; whatever looks like a special token in it is text."""
        ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        """A row for each text; special_tokens: with those that begin and end a text in pretraining."""
        ...

    def cut(self, row: list[int], limit: int, special_tokens: bool) -> list[int]:
        """The row cut to at most `limit` tokens; with `special_tokens` it keeps those that end it."""
        ...


class BytePairs(tiktoken.Encoding):
    """GPT-2's own: no special token begins or ends a text, and end-of-text pads."""

    @property
    def beginning(self) -> list[int]:
        return []

    @property
    def size(self) -> int:
        return self.n_vocab

    @property
    def pad_token(self) -> int:
        return self.encode_single_token(END_OF_TEXT)

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        return [self.encode_ordinary(text[:_LONGEST_TEXT]) for text in texts]

    def cut(self, row: list[int], limit: int, special_tokens: bool) -> list[int]:
        return row[:limit]


class HubTokenizer:
    """A tokenizer of `transformers`, which knows the special tokens that begin and end a text ([CLS], [SEP], <s>)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        encoded = tokenizer("a", return_special_tokens_mask=True)
        special = encoded["special_tokens_mask"]
        has_text = 0 in special  # not where the vocabulary lacks an "a"
        self.beginning: list[int] = encoded["input_ids"][: special.index(0)] if has_text else encoded["input_ids"]
        self._ending = special[::-1].index(0) if has_text else 0
        self.size = max(tokenizer.get_vocab().values()) + 1

    @property
    def pad_token(self) -> int | None:
        pad_token = self._tokenizer.pad_token_id
        assert pad_token is None or isinstance(pad_token, int), "there is one pad token at most"
        return pad_token

    def encode_ordinary(self, text: str) -> list[int]:
        return self.encode_rows([text], special_tokens=False)[0]

    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids))
        assert isinstance(text, str), "one sequence gives one text"
        return text

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        encoded = self._tokenizer(
            texts,
            add_special_tokens=special_tokens,
            split_special_tokens=True,  # what looks like one in a text is text
            return_attention_mask=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def cut(self, row: list[int], limit: int, special_tokens: bool) -> list[int]:
        ending = row[len(row) - self._ending :] if special_tokens and self._ending < limit else []
        return row if len(row) <= limit else [*row[: limit - len(ending)], *ending]


def load_tokenizer(model: str, cache: Path, assets: Path | None) -> Tokenizer:
    """The tokenizer of `model`: a size of GPT-2, mini, or "hf:...".

    Raises NotAvailable where its vocabulary can't be had, UserError where a hub model has none that can be used.
    """
    if is_hub(model):
        return hub_tokenizer(model, locate(model, cache))
    if model == "mini":
        ranks = load_tiktoken_bpe(str(MINI_RANKS))
    else:
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(fetch(VOCABULARY, cache, assets)),
            encoder_json_file=str(fetch(ENCODER, cache, assets)),
        )
    return BytePairs(model, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})


def hub_tokenizer(model: str, folder: Path) -> HubTokenizer:
    """The tokenizer of a model of `transformers` in `path`. Raises UserError where there is none that can be used."""
    if not has_tokenizer(folder):  # transformers would make one up
        raise UserError(
            f"MODEL={model}: the folder has no tokenizer (tokenizer.json): download it again, or save one in it."
        )
    try:
        return HubTokenizer(import_transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:  # the library raises anything for a damaged file
        raise UserError(
            f"MODEL={model}: its tokenizer can't be used ({one_line(error)}): download it again, or choose another "
            "model."
        ) from error
