"""Tokenizers: GPT-2's published one, the small one that ships with the `mini` model, and those of the hub's models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

from harness.data.downloads import Remote, fetch
from harness.data.hub import is_hub, locate
from harness.data.libraries import import_transformers, one_line
from harness.data.model_folder import has_tokenizer
from harness.errors import UserError

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

# In characters: of more than a million blanks in a row tiktoken's search makes a crash. No token is longer than 128
# bytes, so what is cut off lies beyond 3,906 tokens, and rows end at 1,024.
_LONGEST_TEXT = 500_000


class Tokenizer(Protocol):
    """pad_token: what `pad_to` fills rows up with; None where the tokenizer knows none. beginning: the special tokens
    before a text. size: one more than the highest token id."""

    @property
    def pad_token(self) -> int | None: ...

    @property
    def beginning(self) -> list[int]: ...

    @property
    def size(self) -> int: ...

    def encode_ordinary(self, text: str) -> list[int]:
        """Its tokens alone: no text means a special token."""

    def decode(self, ids: Sequence[int]) -> str: ...

    def encode_rows(self, texts: list[str], special_tokens: bool) -> list[list[int]]:
        """special_tokens: each text as the model expects a whole one, begun and ended as it was in pretraining."""

    def cut(self, row: list[int], limit: int, special_tokens: bool) -> list[int]:
        """Of a row that is longer the first `limit` tokens, ended as a row is where it has special tokens."""


class BytePairs(tiktoken.Encoding):
    """GPT-2's own: no special token begins or ends a text, and end-of-text pads."""

    beginning: ClassVar[list[int]] = []

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
    """One of `transformers`', which knows which special tokens begin and end a text ([CLS], [SEP], <s>)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        encoded = tokenizer("a", return_special_tokens_mask=True)
        # Where its own tokens stand; the 0 at the end is for a vocabulary without an "a".
        special = [*encoded["special_tokens_mask"], 0]
        self.beginning: list[int] = encoded["input_ids"][: special.index(0)]
        self._ending = special[-2::-1].index(0) if 0 in special[:-1] else 0
        self.size = max(tokenizer.get_vocab().values()) + 1

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

    def cut(self, row: list[int], limit: int, special_tokens: bool) -> list[int]:
        ending = row[len(row) - self._ending :] if special_tokens and self._ending < limit else []
        return row if len(row) <= limit else [*row[: limit - len(ending)], *ending]


def load_tokenizer(model: str, cache: Path, assets: Path | None) -> Tokenizer:
    """The tokenizer of the model `model`.

    Raises NotAvailable where its vocabulary cannot be had, UserError where a hub model has none.
    """
    if is_hub(model):
        return _hub_tokenizer(model, locate(model, cache))
    if model == "mini":
        ranks = load_tiktoken_bpe(str(MINI_RANKS))
    else:
        files = [fetch(remote, cache, assets) for remote in (VOCABULARY, ENCODER)]
        ranks = data_gym_to_mergeable_bpe_ranks(*(str(file) for file in files))
    return BytePairs(model, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})


def _hub_tokenizer(model: str, path: Path) -> HubTokenizer:
    if not has_tokenizer(path):  # the library would make one up
        raise UserError(
            f"MODEL={model}: the folder has no tokenizer (tokenizer.json): download it again, or save one in it."
        )
    try:
        return HubTokenizer(import_transformers().AutoTokenizer.from_pretrained(path, trust_remote_code=False))
    except Exception as error:  # whatever the library makes of a stranger's file
        raise UserError(
            f"MODEL={model}: its tokenizer can't be used ({one_line(error)}): download it again, or choose another "
            "model."
        ) from error
