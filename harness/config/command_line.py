"""What is typed on a command line or stands for it in a file: seeds, sizes, layers, names of data sets, assignments,
prices."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any, Literal

from harness.config.options import option_named
from harness.config.tree import as_list, scalar
from harness.errors import UserError


def typed(target: str, **variables: str) -> str:
    """A command as it is typed where the user is: `make bench STRATEGY=all` in a clone, `ftbench run --strategy all`
    elsewhere."""
    if Path.cwd() == Path(__file__).parents[2] and Path("Makefile").is_file():
        return " ".join(["make", target, *(f"{name}={_quoted(value)}" for name, value in variables.items())])
    words = ["ftbench", {"bench": "run"}.get(target, target)]
    for name, value in variables.items():
        option = option_named(name.lower().replace("_", "-"))
        words += [f"--{option.name}"] if option.is_flag else [f"--{option.name}", _quoted(value)]
    return " ".join(words)


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value and '"' not in value else shlex.quote(value)


def assignment(given: str) -> tuple[str, Any]:
    """Key and value of `a.b=c`. Raises UserError without a key."""
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


def parse_sizes(given: Any) -> tuple[int | None, ...]:
    """The sizes in `32,100,all`, or in a list of a file; None: all training texts. None given: no sizes."""
    if given is None:
        return ()
    parts = [str(part).strip() for part in (given.split(",") if isinstance(given, str) else as_list(given))]
    if not parts or not all(part == "all" or (part.isdecimal() and int(part)) for part in parts):
        raise UserError(f"SIZES={given!r}: expected numbers of training texts such as 32,100,316,all.")
    sizes = [None if part == "all" else int(part) for part in parts]
    if len(set(sizes)) < len(sizes):
        raise UserError(f"SIZES={given!r}: a size is given twice; name each once.")
    return tuple(sorted(sizes, key=lambda size: (size is None, size or 0)))


def parse_layers(given: Any) -> tuple[int, ...] | Literal["all"] | None:
    """The layers in `0,3,6`, a list of a file, or `all`. None given: none."""
    if given in (None, "all"):
        return given
    try:
        return tuple(int(str(part)) for part in (given if isinstance(given, list) else str(given).split(",")))
    except ValueError as error:
        raise UserError(f"LAYERS={given!r}: expected all, or numbers of blocks such as 0,3,6.") from error


def parse_price(given: str | None) -> float | None:
    """Of an hour of one device, in `2.5/h` or `2.5`, in whatever currency. None given: none.

    Raises UserError for what is no number from 0, and for prices of anything but an hour.
    """
    if given is None:
        return None
    try:
        price = float(given.strip().removesuffix("/h"))
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise UserError(f"PRICE={given!r}: expected a price for each hour and device such as 2.5/h.")
    return price


def data_names(given: Any) -> list[Any]:
    """The names in `sms_spam,reviews.csv`, or in a list; a path with a comma is one name where it exists."""
    if isinstance(given, str) and not Path(given).exists():
        return given.split(",")
    return as_list(given)
