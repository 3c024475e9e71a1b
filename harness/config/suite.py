"""What a suite is: the rows of a file, what options and assignments change of them, every strategy with every seed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.config.schema import Part, Percentage, Positive, RunConfig
from harness.config.tree import as_list, differences, explain, get_key, merged, read_file, scalar, set_key
from harness.errors import UserError


class Published(Part):
    """What somebody published of a row: percentages of accuracy, of one run, and what is known about them.

    number: the row's own. misprint: parts whose figure can't be right. copy_of: the number of the row that computes
    the same.
    """

    number: Positive
    train: Percentage
    validation: Percentage
    test: Percentage
    minutes: Annotated[float, Field(gt=0)] | None = None
    misprint: tuple[Literal["train", "validation", "test"], ...] = ()
    copy_of: Positive | None = None
    note: str | None = None


class Entry(Part):
    """What an entry of a file's `rows` holds beside the keys of RunConfig in which it differs from the others."""

    name: str
    published: Published | None = None


class Row(Part):
    """Runs that are looked at together: one configuration with every seed.

    name: None for the runs of a suite that lists no rows. changed: in words what options changed of the row as its
    file has it, where that changes results. skipped: why it is not wanted.
    """

    name: str | None
    runs: list[RunConfig]
    published: Published | None = None
    changed: list[str] = Field(default_factory=list)
    skipped: str | None = None


class SuiteConfig(Part):
    """The runs that are compared. name: that of its file. source: where published figures are from.

    reference: the strategy or row that the others are compared with; None: last_block, or else the first. tune: whether
    each strategy is also done at its own best learning rate.
    """

    rows: list[Row]
    name: str = "suite"
    source: str | None = None
    reference: str | None = None
    tune: Literal["lr"] | None = None

    def runs(self) -> list[RunConfig]:
        """Of all rows that are wanted."""
        return [run for row in self.rows if not row.skipped for run in row.runs]


def load_suite(file: Path | None, options: dict[str, Any], assignments: list[str]) -> SuiteConfig:
    """The configuration of a suite: the file's differences, then the options', then `a.b=c` assignments.

    options: dotted keys; None leaves a key as it is. `strategy` and `seed` may hold lists: each with each is a run.
    `reference` is one of the strategies; `tune` may be lr. A file may list `rows`, each of which says how it differs
    from the rest of the file. What the file leaves open options decide for every row; `model.name` and `strategy`
    otherwise pick the rows that have them.
    Raises UserError for what is unknown or of the wrong type, with the nearest name.
    """
    tree = read_file(file) if file else {}
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= dict(map(_assignment, assignments))
    reference = changes.pop("reference", tree.pop("reference", None))
    tune = changes.pop("tune", tree.pop("tune", None))
    if tune not in (None, "lr"):
        raise UserError(f"TUNE={tune!r}: expected lr, the learning rate.")
    suite = _suite(file, tree, changes).model_copy(update={"reference": reference, "tune": tune})
    rows = [row.name for row in suite.rows if row.name]
    names = list(dict.fromkeys([*rows, *(run.strategy for run in suite.runs())]))
    if reference is not None and reference not in names:
        raise UserError(
            f"REFERENCE={reference!r} is none of the strategies of this suite: expected one of {', '.join(names)}."
        )
    return suite


def _suite(file: Path | None, tree: dict[str, Any], changes: dict[str, Any]) -> SuiteConfig:
    if "rows" not in tree:
        return SuiteConfig(rows=[Row(name=None, runs=_runs(_changed(tree, changes)))])
    entries, source = tree.pop("rows"), tree.pop("source", None)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"configuration key 'rows' is {entries!r}: expected a list, each entry with a `name`.")
    rows = [_row(tree, entry, number, changes) for number, entry in enumerate(entries, start=1)]
    _check_rows([_row(tree, entry, number, {}) for number, entry in enumerate(entries, start=1)])
    return SuiteConfig(rows=rows, name=file.stem, source=source)


def _row(tree: dict[str, Any], entry: Any, number: int, changes: dict[str, Any]) -> Row:
    if not isinstance(entry, dict):
        raise UserError(f"entry {number} of 'rows' is {entry!r}: expected keys and values, `name` among them.")
    where = f"row {entry.get('name', number)!r}"
    own = {key: value for key, value in entry.items() if key not in Entry.model_fields}
    if "engine" in own:
        raise UserError(f"{where}: one group of ranks does all rows; put 'engine' beside `rows`.")
    written = merged(tree, own)
    try:
        read = Entry.model_validate({key: value for key, value in entry.items() if key not in own})
        before, runs = _runs(written)[0], _runs(_changed(written, _applicable(written, changes)))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, Entry)}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if len({run.strategy for run in runs}) > 1:
        raise UserError(f"{where} has several strategies: give each a row of its own.")
    told = [
        f"{key}={value} instead of {old}"
        for key, (old, value) in differences(before.model_dump(), runs[0].model_dump()).items()
        if not key.startswith(_SAME_RESULTS)
    ]
    skipped = _why_not_wanted(tree, written, changes)
    return Row(name=read.name, runs=runs, published=read.published, changed=told, skipped=skipped)


# What picks rows where a file with rows settles it, and what changes results by no more than chance.
_PICKING = ("model.name", "strategy")
_SAME_RESULTS = (
    "seed",
    "precision",
    "plain",
    "engine.",
    "features.",
    "training.micro_batch_size",
    "training.checkpoint_steps",
)


def _is_decided(tree: dict[str, Any], key: str) -> bool:
    return get_key(tree, key) not in (None, "auto")


def _applicable(written: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What options change of a row: `auto` leaves what is decided as it is, and so does what picks rows."""
    return {
        key: value
        for key, value in changes.items()
        if not (_is_decided(written, key) and (value == "auto" or key in _PICKING))
    }


def _why_not_wanted(tree: dict[str, Any], written: dict[str, Any], changes: dict[str, Any]) -> str | None:
    asked_for = {key: as_list(value) for key, value in changes.items() if key in _PICKING and value != "auto"}
    for key, asked in asked_for.items():
        if _is_decided(written, key) and get_key(written, key) not in asked:
            return f"not asked for: {key}={','.join(map(str, asked))}"
    size, first = get_key(written, "model.name"), get_key(tree, "model.name")
    made_random = changes.get("model.weights") == "random" and get_key(written, "model.weights") != "random"
    if made_random and size != first and "model.name" not in asked_for:
        return f"random weights of other sizes than {first} are not asked for: MODEL={size} does"
    return None


def _check_rows(rows: list[Row]) -> None:
    """Raises UserError for a suite with a duplicate row. A copy has to say so, and to be one."""
    seen: dict[str, Row] = {}
    numbered = {row.published.number: row for row in rows if row.published}
    for row in rows:
        same = [other for other in seen.values() if other.runs == row.runs]
        copy_of = row.published.copy_of if row.published else None
        if row.name in seen:
            raise UserError(f"a suite with a duplicate row: {row.name!r} names two; give each its own name.")
        if row.published and numbered[row.published.number] is not row:
            raise UserError(f"a suite with a duplicate row: two have the published number {row.published.number}.")
        if copy_of and (copy_of not in numbered or numbered[copy_of].runs != row.runs or numbered[copy_of] is row):
            raise UserError(f"row {row.name!r} is no copy of row {copy_of}: it differs from it, or there is none.")
        if same and not copy_of:
            raise UserError(
                f"a suite with a duplicate row: {row.name!r} and {same[0].name!r} are the same run; leave one out, or "
                "say `copy_of: NUMBER` in its `published`."
            )
        seen[row.name] = row


def _runs(tree: dict[str, Any]) -> list[RunConfig]:
    """Every strategy of a tree with every seed."""
    strategies, seeds = as_list(tree.get("strategy", "last_block")), as_list(tree.get("seed", 0))
    for what, values in (("strategy", strategies), ("seed", seeds)):
        if not values:
            raise UserError(f"configuration key {what!r} is an empty list: name at least one {what}.")
    twice = [value for values in (strategies, seeds) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"{twice[0]!r} is given twice: name each strategy and each seed once.")
    try:
        return [RunConfig.model_validate(tree | {"strategy": s, "seed": n}) for s in strategies for n in seeds]
    except ValidationError as error:
        raise UserError(explain(error, RunConfig)) from error


def _changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = merged(tree, {})
    for key, value in changes.items():
        set_key(result, key, value)
    return result


def _assignment(given: str) -> tuple[str, Any]:
    key, equals, value = given.partition("=")
    if not equals:
        raise UserError(f'SET={given!r}: expected key=value, such as SET="optimizer.learning_rate=1e-4".')
    return key, scalar(value)


def parse_seeds(given: str) -> list[int]:
    """`0,1,2` or `0..9`."""
    try:
        first, dots, last = given.partition("..")
        seeds = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in given.split(",")]
    except ValueError:
        seeds = []
    if not seeds:
        raise UserError(f"SEEDS={given!r}: expected whole numbers such as 0,1,2 or a range such as 0..9.")
    return seeds


def split_assignments(given: list[str]) -> list[str]:
    """`a=1 b='two words'` -> its assignments; quotes as in a shell."""
    try:
        return [assignment for text in given for assignment in shlex.split(text)]
    except ValueError as error:
        raise UserError(f"SET={' '.join(given)!r}: {error}; close the quotes.") from error
