"""The split that comes with a data set, and what is cut where a part is missing."""

from __future__ import annotations

import pandas as pd

from harness.data.splits import Sizes, Split, cut_off
from harness.errors import UserError


def official(texts: pd.DataFrame, part: pd.Series, sizes: Sizes, seed: int) -> tuple[Split, list[str]]:
    """The parts as they are, and what to say of them.

    Without validation texts a stratified part of the training texts is taken, in the proportion of `sizes`; without
    test texts the validation texts are those, and others are taken for validation.
    part: train, validation or test of each text. The index of each part is that of `texts`.
    Raises UserError where there are neither, or no training texts.
    """
    given = {name: texts[(part == name).to_numpy()] for name in ("train", "validation", "test")}
    missing = [name for name, texts_of_part in given.items() if texts_of_part.empty]
    if "train" in missing or len(missing) > 1:
        raise UserError(
            f"data.split=official: the {' and '.join(missing)} part is missing; expected train and test, better also "
            "validation, or another data.split."
        )
    sizes_given = " / ".join(f"{len(texts_of_part):,}" for texts_of_part in given.values() if len(texts_of_part))
    present = ", ".join(name for name in given if name not in missing)
    notes = [f"official split: {present} ({sizes_given})"]
    if missing:
        test = given["validation"] if missing == ["test"] else given["test"]
        train, validation = cut_off(given["train"], sizes[1] / (sizes[0] + sizes[1]), seed)
        if missing == ["test"]:
            notes.append("its validation texts serve as test texts, since it has no test labels")
        notes.append(f"{len(validation):,} of its training texts are taken for validation, stratified by class")
        given = {"train": train, "validation": validation, "test": test}
    return given, notes
