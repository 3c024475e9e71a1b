"""Tokenizers: GPT-2's, the small one that ships with the `mini` model, and those of hub models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

from harness.config.places import is_hub
from harness.data.downloads import Remote, fetch
from harness.data.libraries import import_transformers, one_line
from harness.data.model_files.hub import locate
from harness.data.model_files.model_folder import has_tokenizer, read_config
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

# Characters of a text that are looked at, half at either end: tiktoken crashes on a run of more than a million blanks.
# A token has at most 128 bytes, so each half is at least 1,953 tokens, beyond any row of 1,024.
_LONGEST_TEXT = 500_000


# Added to the ids of a pair's second text, and of what ends it, for a model that embeds which text a token is of.
SECOND_TEXT = 1 << 24


@dataclass(frozen=True)
class Template:
    """The special tokens of a row: before a text, between the two of a pair, and after the last one.

    second: what is added to the ids of a second text: SECOND_TEXT, or 0.
    """

    beginning: list[int]
    middle: list[int]
    ending: list[int]
    second: int = 0

    def __len__(self) -> int:
        return len(self.beginning) + len(self.middle) + len(self.ending)


BARE = Template([], [], [])


class Tokenizer(Protocol):
    """Text to token ids and back, as one model expects them."""

    @property
    def pad_token(self) -> int | None:
        """What rows are padded with; None where the tokenizer has none."""
        ...

    @property
    def size(self) -> int:
        """One more than the highest token id."""
        ...

    def encode_ordinary(self, text: str, /) -> list[int]:
        """The text's own tokens; whatever looks like a special token in it is text."""
        ...

    def encode(self, texts: Sequence[str], /) -> list[list[int]]:
        """The own tokens of each text."""
        ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def template(self, pair: bool) -> Template:
        """The special tokens around a text, or around a pair, in pretraining."""
        ...


class BytePairs(tiktoken.Encoding):
    """GPT-2's own: no special token begins, divides or ends texts, and end-of-text pads."""

    @property
    def size(self) -> int:
        return self.n_vocab

    @property
    def pad_token(self) -> int:
        return self.encode_single_token(END_OF_TEXT)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return [self.encode_ordinary(_clipped(text)) for text in texts]

    def template(self, pair: bool) -> Template:
        return BARE


def _clipped(text: str) -> str:
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else text[:half] + text[-half:]


class HubTokenizer:
    """A tokenizer of `transformers`, which knows the special tokens that begin and end a text ([CLS], [SEP], <s>)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, has_token_types: bool) -> None:
        """has_token_types: whether the model embeds which text of a pair a token is of."""
        self._tokenizer, self._has_token_types = tokenizer, has_token_types
        self._templates = {pair: self._template(pair) for pair in (False, True)}
        self.size = max(tokenizer.get_vocab().values()) + 1

    @property
    def pad_token(self) -> int | None:
        pad_token = self._tokenizer.pad_token_id
        assert pad_token is None or isinstance(pad_token, int), "there is one pad token at most"
        return pad_token

    def encode_ordinary(self, text: str) -> list[int]:
        return self.encode([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids))
        assert isinstance(text, str), "one sequence gives one text"
        return text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,  # what looks like one in a text is text
            return_attention_mask=False,
            verbose=False,
        )
        return encoded["input_ids"]

    def template(self, pair: bool) -> Template:
        return self._templates[pair]

    def _template(self, pair: bool) -> Template:
        """What the library puts around the tokens of "a", or of "a" and "a"."""
        encoded = self._tokenizer(
            "a", "a" if pair else None, return_special_tokens_mask=True, return_token_type_ids=True
        )
        runs = [
            (is_special, [token for token, _ in run])
            for is_special, run in groupby(
                zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True), key=lambda one: bool(one[1])
            )
        ]
        texts = [number for number, (is_special, _) in enumerate(runs) if not is_special]
        if not texts:  # the vocabulary lacks an "a"
            return Template(encoded["input_ids"], [], [])
        beginning, middle, ending = (
            [token for is_special, ids in part if is_special for token in ids] for part in _around(runs, texts)
        )
        second = SECOND_TEXT if self._has_token_types and pair and encoded["token_type_ids"][-1] else 0
        return Template(beginning, middle, [token + second for token in ending], second)


def _around(runs: list[Any], texts: list[int]) -> tuple[list[Any], list[Any], list[Any]]:
    """The runs before the first text, between it and the last, and after that."""
    first, last = texts[0], texts[-1]
    return runs[:first], runs[first + 1 : last], runs[last + 1 :]


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
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return HubTokenizer(tokenizer, has_token_types=read_config(folder).get("model_type") == "bert")
    except Exception as error:  # the library raises anything for a damaged file
        raise UserError(
            f"MODEL={model}: its tokenizer can't be used ({one_line(error)}): download it again, or choose another "
            "model."
        ) from error
