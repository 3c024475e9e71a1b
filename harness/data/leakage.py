"""What in the texts themselves bounds or flatters an accuracy: leaks, contradictions, classes with hardly a text."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from harness.data.splits import Split, near_duplicate_key

FEWEST = 3  # texts of a class: one in each part
_NAMED = 5
_MISSING = ("-", "?", "nan", "null", "n/a")


def seen_in_training(split: Split) -> tuple[list[bool], int]:
    """For each test text whether it is a training text verbatim; and how many test texts are near-duplicates of one,
    the verbatim ones included."""
    train, test = (split[name]["text"].tolist() for name in ("train", "test"))
    texts, keys = set(train), set(map(near_duplicate_key, train))
    return [text in texts for text in test], sum(near_duplicate_key(text) in keys for text in test)


def contradicting(texts: pd.DataFrame) -> tuple[int, int]:
    """How many texts stand there with different labels, and in how many rows."""
    repeated = texts[texts["text"].duplicated(keep=False)]
    labels = repeated.groupby("text")["label"].nunique()
    several = set(labels[labels > 1].index)
    return len(several), int(repeated["text"].isin(several).sum())


def warnings(texts: pd.DataFrame, split: Split) -> Iterator[str]:
    """What a reader of results must know of the texts."""
    count, rows = contradicting(texts)
    if count:
        yield (
            f"contradictions: {count:,} (texts with several labels), in {rows:,} rows; no classifier gets all of them "
            "right"
        )
    numbers = texts["text"][pd.to_numeric(texts["text"], errors="coerce").notna()]
    if len(numbers) > len(texts) / 2:
        yield (
            f"texts that are numbers: {len(numbers):,} of {len(texts):,}, such as {numbers.iloc[0]!r}; "
            "data.text_column names another column"
        )
    counts = texts["label"].value_counts()
    rare = counts[counts < FEWEST]
    if len(rare):
        named = ", ".join(f"{label!r} ({count})" for label, count in rare[:_NAMED].items())
        more = f" and {len(rare) - _NAMED} more" if len(rare) > _NAMED else ""
        yield f"classes with fewer than {FEWEST} texts: {named}{more}; such a class can't be both learnt and tested"
    missing = [label for label in counts.index if _may_be_missing(label, counts.index)]
    if missing:
        named = ", ".join(f"{label!r} ({counts[label]:,})" for label in missing)
        yield f"classes that may stand for a missing label: {named}; remove these texts if so"
    untrained = sorted(set(split["test"]["label"]) - set(split["train"]["label"]))
    if untrained:
        yield f"classes of the test part without a training text: {', '.join(map(repr, untrained[:_NAMED]))}"


def _may_be_missing(label: str, labels: Collection[str]) -> bool:
    """-1 where no other label is a number, and what tables write for nothing."""
    if label == "-1":
        return not any(other.isdigit() for other in labels)
    return label.lower() in _MISSING and not (label == "-" and "+" in labels)
