"""From a file, options and assignments to a suite: its rows, each one configuration with every seed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.config.schema import Part, Percentage, Positive, RunConfig
from harness.config.tree import as_list, differences, explain, get_key, merged, read_file, scalar, set_key
from harness.errors import UserError
from harness.metrics import MetricName, metric_named


class Published(Part):
    """What somebody published for a row: percentages of accuracy of one run, and what is known about them.

    number: the row's number in the publication.
    misprint: parts whose figure can't be right.
    copy_of: the number of the row that computes the same.
    """

    number: Positive
    train: Percentage
    validation: Percentage
    test: Percentage
    minutes: Annotated[float, Field(gt=0)] | None = None
    misprint: tuple[Literal["train", "validation", "test"], ...] = ()
    copy_of: Positive | None = None
    note: str | None = None


class RowHeading(Part):
    """The keys of an entry of a file's `rows` that are not configuration; all others are keys of RunConfig."""

    name: str
    published: Published | None = None


class SuiteRow(Part):
    """Runs that are shown together: one configuration with every seed.

    name: None for the runs of a suite that lists no rows.
    changed: how options change the results of the row that its file describes, as in "training.epochs=1 instead of 5".
    skipped: why the row is not run; None where it is.
    """

    name: str | None
    runs: list[RunConfig]
    published: Published | None = None
    changed: list[str] = Field(default_factory=list)
    skipped: str | None = None


class SuiteConfig(Part):
    """The runs that are compared.

    name: the stem of the suite's file.
    source: where its published figures are from.
    reference: the strategy or row that the others are compared with. None: last_block, or the first where it is absent.
    tune: "lr": each strategy also runs at its own best learning rate.
    layers: the blocks, by number, or all, at each of which every strategy is read; None: as each strategy says.
    metric: what strategies are compared by, and what the best learning rate and classifier are chosen by.
    """

    rows: list[SuiteRow]
    name: str = "suite"
    source: str | None = None
    reference: str | None = None
    tune: Literal["lr"] | None = None
    layers: tuple[int, ...] | Literal["all"] | None = None
    metric: MetricName = "accuracy"

    def runs(self) -> list[RunConfig]:
        """The runs of all rows that are not skipped."""
        return [run for row in self.rows if not row.skipped for run in row.runs]


def load_suite(file: Path | None, options: dict[str, Any], assignments: list[str]) -> SuiteConfig:
    """The suite that a file, options and `a.b=c` assignments describe; each of them overrides those before it.

    options: by dotted key; None leaves a key as it is. `strategy` and `seed` may be lists: a run for each pair.
    A file may list `rows`, each with its differences from the rest of the file. Options then apply to every row, except
    `model.name` and `strategy`, which select the rows that already have that value.
    Raises UserError for an unknown key, naming the nearest one, and for a value of the wrong type.
    """
    tree = read_file(file) if file else {}
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= dict(map(_assignment, assignments))
    reference = changes.pop("reference", tree.pop("reference", None))
    tune = changes.pop("tune", tree.pop("tune", None))
    if tune not in (None, "lr"):
        raise UserError(f"TUNE={tune!r}: expected lr, the learning rate.")
    layers = _layers(changes.pop("layers", tree.pop("layers", None)))
    metric = metric_named(changes.pop("metric", tree.pop("metric", "accuracy")))
    suite = _suite_of_rows(file, tree, changes) if file and "rows" in tree else _suite_of_runs(tree, changes)
    if reference is not None:
        _check_reference(reference, suite)
    return suite.model_copy(update={"reference": reference, "tune": tune, "layers": layers, "metric": metric.name})


def _layers(given: Any) -> tuple[int, ...] | Literal["all"] | None:
    """The layers in `0,3,6`, a list of a file, or `all`."""
    if given in (None, "all"):
        return given
    try:
        return tuple(int(str(part)) for part in (given if isinstance(given, list) else str(given).split(",")))
    except ValueError as error:
        raise UserError(f"LAYERS={given!r}: expected all, or numbers of blocks such as 0,3,6.") from error


def _check_reference(reference: str, suite: SuiteConfig) -> None:
    rows = [row.name for row in suite.rows if row.name]
    known = list(dict.fromkeys([*rows, *(run.strategy for run in suite.runs())]))
    if reference not in known:
        raise UserError(
            f"REFERENCE={reference!r} is none of the strategies of this suite: expected one of {', '.join(known)}."
        )


def _suite_of_runs(tree: dict[str, Any], changes: dict[str, Any]) -> SuiteConfig:
    return SuiteConfig(rows=[SuiteRow(name=None, runs=_runs(_changed(tree, changes)))])


def _suite_of_rows(file: Path, tree: dict[str, Any], changes: dict[str, Any]) -> SuiteConfig:
    entries, source = tree.pop("rows"), tree.pop("source", None)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"configuration key 'rows' is {entries!r}: expected a list, each entry with a `name`.")
    rows = [_row(tree, entry, number, changes) for number, entry in enumerate(entries, start=1)]
    _check_rows([_row(tree, entry, number, {}) for number, entry in enumerate(entries, start=1)])
    return SuiteConfig(rows=rows, name=file.stem, source=source)


def _row(shared: dict[str, Any], entry: Any, number: int, changes: dict[str, Any]) -> SuiteRow:
    """The row that an entry of `rows` describes; shared: the rest of the file."""
    if not isinstance(entry, dict):
        raise UserError(f"entry {number} of 'rows' is {entry!r}: expected keys and values, `name` among them.")
    where = f"row {entry.get('name', number)!r}"
    settings = {key: value for key, value in entry.items() if key not in RowHeading.model_fields}
    if "engine" in settings:
        raise UserError(f"{where}: all rows run on one group of ranks; put 'engine' beside `rows`.")
    written = merged(shared, settings)
    try:
        heading = RowHeading.model_validate({key: value for key, value in entry.items() if key not in settings})
        as_written, runs = _runs(written)[0], _runs(_changed(written, _applicable(written, changes)))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, RowHeading)}") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if len({run.strategy for run in runs}) > 1:
        raise UserError(f"{where} has several strategies: give each a row of its own.")
    return SuiteRow(
        name=heading.name,
        runs=runs,
        published=heading.published,
        changed=_changes_of_results(as_written, runs[0]),
        skipped=_reason_to_skip(shared, written, changes),
    )


# Options that select rows instead of changing them.
_SELECTING = ("model.name", "strategy")
# What changes results by no more than chance.
_SAME_RESULTS = (
    "seed",
    "precision",
    "plain",
    "engine.",
    "features.",
    "training.micro_batch_size",
    "training.checkpoint_steps",
)


def _changes_of_results(as_written: RunConfig, run: RunConfig) -> list[str]:
    return [
        f"{key}={value} instead of {old}"
        for key, (old, value) in differences(as_written.model_dump(), run.model_dump()).items()
        if not key.startswith(_SAME_RESULTS)
    ]


def _is_set(tree: dict[str, Any], key: str) -> bool:
    return get_key(tree, key) not in (None, "auto")


def _applicable(written: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The options that change a row: neither `auto` nor an option that selects rows overrides what the row sets."""
    return {
        key: value
        for key, value in changes.items()
        if not (_is_set(written, key) and (value == "auto" or key in _SELECTING))
    }


def _reason_to_skip(shared: dict[str, Any], written: dict[str, Any], changes: dict[str, Any]) -> str | None:
    """Why the options don't select a row; shared: the file without its rows. None where they do."""
    selected = {key: as_list(value) for key, value in changes.items() if key in _SELECTING and value != "auto"}
    for key, values in selected.items():
        if _is_set(written, key) and get_key(written, key) not in values:
            return f"not asked for: {key}={','.join(map(str, values))}"
    # WEIGHTS=random by itself does not ask for the larger sizes of the file.
    size, usual_size = get_key(written, "model.name"), get_key(shared, "model.name")
    made_random = changes.get("model.weights") == "random" and get_key(written, "model.weights") != "random"
    if made_random and size != usual_size and "model.name" not in selected:
        return f"random weights of other sizes than {usual_size} are not asked for: MODEL={size} does"
    return None


def _check_rows(rows: list[SuiteRow]) -> None:
    """Raises UserError for a duplicate row, unless it says that it is a copy, and for a copy that is none."""
    seen: list[SuiteRow] = []
    numbered = {row.published.number: row for row in rows if row.published}
    for row in rows:
        same = [other for other in seen if other.runs == row.runs]
        copy_of = row.published.copy_of if row.published else None
        if row.name in (other.name for other in seen):
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
        seen.append(row)


def _runs(tree: dict[str, Any]) -> list[RunConfig]:
    """The runs of a tree: every strategy with every seed."""
    strategies, seeds = as_list(tree.get("strategy", "last_block")), as_list(tree.get("seed", 0))
    for key, values in (("strategy", strategies), ("seed", seeds)):
        if not values:
            raise UserError(f"configuration key {key!r} is an empty list: name at least one {key}.")
    twice = [value for values in (strategies, seeds) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"{twice[0]!r} is given twice: name each strategy and each seed once.")
    try:
        return [RunConfig.model_validate(tree | {"strategy": s, "seed": n}) for s in strategies for n in seeds]
    except ValidationError as error:
        raise UserError(explain(error, RunConfig)) from error


def _changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with `changes`, by dotted key."""
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
    """The seeds in `0,1,2` or `0..9`, both ends included."""
    try:
        first, dots, last = given.partition("..")
        seeds = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in given.split(",")]
    except ValueError:
        seeds = []
    if not seeds:
        raise UserError(f"SEEDS={given!r}: expected whole numbers such as 0,1,2 or a range such as 0..9.")
    return seeds


def split_assignments(given: list[str]) -> list[str]:
    """The assignments in texts such as `a=1 b='two words'`, quoted as in a shell."""
    try:
        return [assignment for text in given for assignment in shlex.split(text)]
    except ValueError as error:
        raise UserError(f"SET={' '.join(given)!r}: {error}; close the quotes.") from error
