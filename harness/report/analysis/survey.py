"""What `ftbench data` finds in a data set before any run: classes, lengths, repeats, contradictions, trivial baselines.

Without PyTorch: the command answers in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.baselines import LabelledTexts, Part, first_token_lookup, length_rule, majority
from harness.data.dataset import Dataset
from harness.data.encoding import RowRule, encode_split
from harness.data.leakage import contradicting
from harness.data.splits import SPLITS, Split
from harness.data.tokenizer import Tokenizer

RULES = {"majority": majority.fit, "length_rule": length_rule.fit, "first_token_lookup": first_token_lookup.fit}
PERCENTILES = (0, 50, 90, 95, 99, 100)


@dataclass(frozen=True)
class Lengths:
    """Tokens of a text, special ones included. percentiles: by percent. cut: how many texts are longer than `limit`."""

    model: str
    mean: float
    percentiles: dict[int, int]
    limit: int
    cut: int


@dataclass(frozen=True)
class Repeats:
    """within: texts of each part that stand in it before. across: texts of the second part that stand in the first,
    verbatim. near: test texts that a training text equals but for digits, case and punctuation. contradicting: texts
    with several labels, and the rows that they stand in."""

    within: dict[str, int]
    across: dict[str, int]
    near: int
    contradicting: tuple[int, int]


@dataclass(frozen=True)
class Survey:
    """classes: texts of each class, by part. baselines: their accuracy on the test texts, 0 to 1."""

    name: str
    sha256: str
    reason: str
    notes: list[str]
    columns: dict[str, Any]
    split: str
    sizes: dict[str, int]
    classes: dict[str, dict[str, int]]
    lengths: Lengths
    repeats: Repeats
    baselines: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def survey(dataset: Dataset, reason: str, model: str, tokenizer: Tokenizer, context: int) -> Survey:
    """reason: why this data set was chosen. context: the most tokens that the model takes."""
    config, split, classes = dataset.config, dataset.split, dataset.source.classes
    counts = {name: part["label"].value_counts() for name, part in split.items()}
    rows = encode_split(split, tokenizer, classes, RowRule(most_tokens=np.iinfo(np.int32).max))
    limit = config.max_tokens or context
    lengths = np.concatenate([part.real_lengths for part in rows.values()])
    values = np.percentile(lengths, PERCENTILES, method="inverted_cdf").astype(int).tolist()
    return Survey(
        name=dataset.source.name,
        sha256=dataset.source.sha256,
        reason=reason,
        notes=dataset.notes,
        columns={"text": config.text_column, "label": config.label_column, "encoding": config.encoding},
        split=config.split,
        sizes={name: len(part) for name, part in split.items()},
        classes={label: {name: int(counts[name].get(label, 0)) for name in SPLITS} for label in classes},
        lengths=Lengths(
            model=model,
            mean=float(lengths.mean()),
            percentiles=dict(zip(PERCENTILES, values, strict=True)),
            limit=limit,
            cut=int((lengths > limit).sum()),
        ),
        repeats=_repeats(dataset),
        baselines=_trivial_accuracies(
            {name: Part(split[name]["text"].tolist(), rows[name]) for name in SPLITS}, classes
        ),
    )


def _repeats(dataset: Dataset) -> Repeats:
    split = dataset.split
    return Repeats(
        within={name: int(part["text"].duplicated().sum()) for name, part in split.items()},
        across={
            "validation in train": _seen(split, "train", "validation"),
            "test in train": sum(dataset.test_seen),
            "test in validation": _seen(split, "validation", "test"),
        },
        near=dataset.test_near_train,
        contradicting=contradicting(pd.concat(split.values())),
    )


def _seen(split: Split, first: str, second: str) -> int:
    known = set(split[first]["text"].tolist())
    return sum(text in known for text in split[second]["text"].tolist())


def _trivial_accuracies(parts: dict[str, Part], classes: list[str]) -> dict[str, float]:
    task, labels = LabelledTexts(parts["train"], classes), parts["test"].examples.labels
    found = {name: fit(task).probabilities(parts["test"]) for name, fit in RULES.items()}
    return {name: float((one.argmax(axis=1) == labels).mean()) for name, one in found.items()}
