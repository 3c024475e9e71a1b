"""From a file, options and assignments to a suite: its rows, each one configuration with every seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.config.command_line import assignment, data_names, parse_layers, parse_sizes
from harness.config.schema import Part, Percentage, Positive, RunConfig
from harness.config.tree import as_list, differences, explain, get_key, merged, read_file, set_key
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
    sizes: of the training part; None among them: all of its texts. Empty: all, and no learning curve.
    layers: the blocks, by number, or all, at each of which every strategy is read; None: as each strategy says.
    metric: what strategies are compared by, and what the best learning rate and classifier are chosen by.
    """

    rows: list[SuiteRow]
    name: str = "suite"
    source: str | None = None
    reference: str | None = None
    tune: Literal["lr"] | None = None
    sizes: tuple[int | None, ...] = ()
    layers: tuple[int, ...] | Literal["all"] | None = None
    metric: MetricName = "accuracy"

    @property
    def has_several_data_sets(self) -> bool:
        return _has_several_data_sets(self.runs())

    def runs(self) -> list[RunConfig]:
        """The runs of all rows that are not skipped."""
        return [run for row in self.rows if not row.skipped for run in row.runs]


def load_suite(file: Path | None, options: dict[str, Any], assignments: list[str]) -> SuiteConfig:
    """The suite that a file, options and `a.b=c` assignments describe; each of them overrides those before it.

    file: a path, or the name of a built-in suite, as `read_file` takes it.
    options: by dotted key; None leaves a key as it is. `strategy`, `seed` and `data` may be lists: a run for each
    combination.
    A file may list `rows`, each with its differences from the rest of the file. Options then apply to every row, except
    `model.name` and `strategy`, which select the rows that already have that value.
    Raises UserError for an unknown key, naming the nearest one, and for a value of the wrong type.
    """
    tree = read_file(file) if file else {}
    changes = {key: value for key, value in options.items() if value is not None}
    changes |= dict(map(assignment, assignments))
    reference = changes.pop("reference", tree.pop("reference", None))
    tune = changes.pop("tune", tree.pop("tune", None))
    if tune not in (None, "lr"):
        raise UserError(f"TUNE={tune!r}: expected lr, the learning rate.")
    layers = parse_layers(changes.pop("layers", tree.pop("layers", None)))
    metric = metric_named(changes.pop("metric", tree.pop("metric", "accuracy")))
    sizes = parse_sizes(changes.pop("sizes", tree.pop("sizes", None)))
    suite = _suite_of_rows(file, tree, changes) if file and "rows" in tree else _suite_of_runs(tree, changes)
    if reference is not None:
        _check_reference(reference, suite)
    suite = suite.model_copy(
        update={
            "reference": reference,
            "tune": tune,
            "sizes": sizes,
            "layers": layers,
            "metric": metric.name,
        }
    )
    _check_combination(suite)
    return suite


def _check_combination(suite: SuiteConfig) -> None:
    asked = {"SIZES": bool(suite.sizes), "several data sets": suite.has_several_data_sets}
    several = [what for what, is_asked in asked.items() if is_asked]
    if several and suite.tune:
        raise UserError(f"TUNE=lr with {several[0]}: the best rate may differ between them; tune each by itself.")
    if suite.sizes and any(row.name for row in suite.rows):
        raise UserError("SIZES with a file that lists rows: their training is given; leave SIZES out.")


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
    if _has_several_data_sets(runs):
        raise UserError(f"{where} has several data sets: give each a suite of its own.")
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
    "forgetting",
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
    """The runs of a tree: every strategy with every seed, on every data set."""
    strategies, seeds = as_list(tree.get("strategy", "last_block")), as_list(tree.get("seed", 0))
    data_sets = _data_sets(tree.get("data", {}))
    for key, values in (("strategy", strategies), ("seed", seeds), ("data", data_sets)):
        if not values:
            raise UserError(f"configuration key {key!r} is an empty list: name at least one {key}.")
    twice = [value for values in (strategies, seeds, data_sets) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"{twice[0]!r} is given twice: name each strategy, each seed and each data set once.")
    try:
        return [
            RunConfig.model_validate(tree | {"strategy": strategy, "seed": seed, "data": data})
            for data in data_sets
            for strategy in strategies
            for seed in seeds
        ]
    except ValidationError as error:
        raise UserError(explain(error, RunConfig)) from error


def _has_several_data_sets(runs: list[RunConfig]) -> bool:
    return any(run.data != runs[0].data for run in runs)


def _data_sets(given: Any) -> list[Any]:
    """The data of each data set: a list of them, each a name or keys and values, or one whose `name` is a list."""
    if isinstance(given, list):
        return [{"name": one} if isinstance(one, str) else one for one in given]
    if isinstance(given, dict) and "name" in given:
        return [{**given, "name": name} for name in data_names(given["name"])]
    return [given]


def _changed(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `tree` with `changes`, by dotted key."""
    result = merged(tree, {})
    for key, value in changes.items():
        set_key(result, key, value)
    return result
