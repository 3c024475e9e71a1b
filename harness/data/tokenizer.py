"""Byte-level BPE tokenizers: GPT-2's published one, and the small one that ships with the `mini` model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks, load_tiktoken_bpe

from harness.data.fetch import Remote, fetch

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


def load_tokenizer(model: str, cache: Path, assets: Path | None) -> tiktoken.Encoding:
    """The tokenizer of the model size `model`.

    Raises harness.data.fetch.NotAvailable where GPT-2's vocabulary can't be had.
    """
    if model == "mini":
        ranks = load_tiktoken_bpe(str(MINI_RANKS))
    else:
        files = [fetch(remote, cache, assets) for remote in (VOCABULARY, ENCODER)]
        ranks = data_gym_to_mergeable_bpe_ranks(*(str(file) for file in files))
    return tiktoken.Encoding(model, pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)})
