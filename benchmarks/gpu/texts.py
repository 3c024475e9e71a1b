"""The texts: the SMS Spam Collection with GPT-2's vocabulary, or generated rows of like lengths without either."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from benchmarks.processes import CACHE
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable, assets_folder
from harness.data.tokenizer import BARE, Template, Tokenizer, load_tokenizer

VOCABULARY = 50_257
# As in the collection: texts, and of the balanced part of them; different tokens.
ALL, BALANCED, OCCURRING = 5_572, 1_494, 9_000


class Texts(BaseModel):
    """balanced, full: data sets of the configuration. generated: their words are token ids. about: what they are."""

    balanced: DataConfig
    full: DataConfig
    generated: bool
    about: str

    def tokenizer(self, model: str) -> Tokenizer:
        return Numbers() if self.generated else load_tokenizer(model, CACHE, assets_folder())


class Numbers:
    """A stand-in for GPT-2's tokenizer: each word of a text is a token id."""

    pad_token, size = VOCABULARY - 1, VOCABULARY

    def encode_ordinary(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode_ordinary(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def template(self, pair: bool) -> Template:
        return BARE


def texts_for(model: str, size: int | None, folder: Path) -> Texts:
    """size: of the embedded model's synthetic data; folder: where generated texts are written."""
    if model == "mini":
        data = DataConfig(name="synthetic", **({"size": size} if size else {}))
        return Texts(balanced=data, full=data, generated=False, about=f"synthetic, {data.size} texts")
    balanced, full = (DataConfig(name="sms_spam", balance=balance) for balance in (None, False))
    try:
        load_dataset(balanced, CACHE)
        load_tokenizer(model, CACHE, assets_folder())
    except NotAvailable as missing:
        about = f"generated rows of like lengths as the SMS Spam Collection's, since {missing}: set FTBENCH_ASSETS"
        balanced, full = (_generated(folder / f"{count}.csv", count) for count in (BALANCED, ALL))
        return Texts(balanced=balanced, full=full, generated=True, about=about)
    about = "SMS Spam: the textbook's 1,494 balanced texts at batch 8, all 5,572 at 64 and 512"
    return Texts(balanced=balanced, full=full, generated=False, about=about)


def _generated(path: Path, count: int) -> DataConfig:
    random = np.random.default_rng(count)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(count):
            spam = number < BALANCED // 2
            length = int(np.clip(random.normal(39, 9) if spam else random.lognormal(2.8, 0.65), 1, 200))
            ids = (OCCURRING * random.random(length) ** 3).astype(int)
            writer.writerow([" ".join(map(str, ids)), "spam" if spam else "ham"])
    return DataConfig(name=str(path), balance=False)
