"""What is said over several tables: learning curves over labels, and comparisons over data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.across.data_sets import data_sets, data_sets_matrix
from harness.report.across.label_curves import label_curves, label_matrix
from harness.report.across.matrix import Matrix
from harness.report.table.comparison_table import ComparisonTable


def overviews(tables: Sequence[ComparisonTable]) -> list[Matrix]:
    return [*map(label_matrix, label_curves(tables)), *map(data_sets_matrix, data_sets(tables))]


def alone(tables: Sequence[ComparisonTable]) -> list[ComparisonTable]:
    """The tables that no overview takes in."""
    families = [found.family for found in (*label_curves(tables), *data_sets(tables))]
    taken_in = {id(table) for family in families for table in family.tables}
    return [table for table in tables if id(table) not in taken_in]


def overviews_as_data(tables: Sequence[ComparisonTable]) -> list[dict[str, Any]]:
    """For comparison.json."""
    curves = [
        {"conditions": found.heading, "sizes": found.sizes, "reference": found.family.reference}
        | {"in_words": label_matrix(found).in_words, "rows": found.family.as_data()}
        for found in label_curves(tables)
    ]
    compared = [
        {"conditions": found.heading, "data_sets": found.names, "reference": found.family.reference}
        | {"in_words": data_sets_matrix(found).in_words, "rows": found.family.as_data()}
        | {"mean_ranks": found.mean_ranks.to_dict(), "friedman_p": found.ranks and found.ranks.p}
        for found in data_sets(tables)
    ]
    return [*curves, *compared]
