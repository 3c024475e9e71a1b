"""Tables of Arrow: parquet files, and the data sets of the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.data.reading.table import Table
from harness.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(name: str, content: bytes) -> Table:
    """Raises UserError for what is no parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return table_of(name, pq.read_table(pa.BufferReader(content)))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data file {name!r} is no parquet file, or damaged ({reason}): write it again.") from error


def table_of(name: str, arrow: pa.Table, meaning: Callable[[str, list[Any]], list[Any]] | None = None) -> Table:
    """meaning: of the values of a column, by its name; None: they are what they say."""

    def read(column: str) -> list[Any]:
        values = arrow.column(arrow.column_names.index(original[column])).to_pylist()
        if any(isinstance(value, bytes) for value in values):  # text that its writer did not mark as text
            values = _decoded(name, column, values)
        return meaning(original[column], values) if meaning else values

    original = {column.strip(): column for column in arrow.column_names}
    return Table(name, list(original), read, range(1, arrow.num_rows + 1), unit="row")


def _decoded(name: str, column: str, values: list[bytes | None]) -> list[str | None]:
    try:
        return [value if value is None else value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise UserError(
            f"data file {name!r}: {column!r} holds bytes that are no UTF-8 ({error.reason}); write it as text."
        ) from error
