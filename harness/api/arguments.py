"""What `compare` and `TextClassifier` are given, checked before anything is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.api.given import InvalidInput
from harness.config.options import options_of


@dataclass(frozen=True)
class Argument:
    """expected: what is right, in words. is_right: whether a value is, with an iterable as a list. required: None is
    wrong, too, instead of a default."""

    expected: str
    is_right: Callable[[Any], bool]
    required: bool = False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _is_settings(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


_PATH = Argument("a path", _is_path)
_ON_OR_OFF = Argument("True or False", lambda value: isinstance(value, bool))
_NAME = Argument("a name", _is_text)
_SETTINGS = Argument(
    'keys of the configuration with their values, such as {"optimizer.learning_rate": 1e-4}', _is_settings
)
_STRATEGY = "a name of `ftbench list`, a path to a `.py` file"
# Of options that are no texts on a command line; whole numbers are the configuration's to check.
_BY_TYPE = {Path: _PATH, bool: _ON_OR_OFF}
_NAMES = ("model", "weights", "readout", "engine", "reference", "metric", "tune", "precision")
OF_COMPARE = {
    **{option.parameter: _BY_TYPE[option.type] for option in options_of("bench") if option.type in _BY_TYPE},
    **dict.fromkeys(_NAMES, _NAME),
    "strategies": Argument(
        f"{_STRATEGY}, or a list of them", lambda value: _is_path(value) or _all(_is_path)(value)
    ),
    "seeds": Argument(
        "a whole number, a list of them, or a text such as '0..9'",
        lambda value: _is_text(value) or _is_whole(value) or _all(_is_whole)(value),
    ),
    "results": Argument("a path", _is_path, required=True),
    "track": Argument("a tracker's name, or a list of them", lambda value: _is_text(value) or _all(_is_text)(value)),
    "settings": _SETTINGS,
}  # fmt: skip
OF_CLASSIFIER = {
    "strategy": Argument(_STRATEGY, _is_path, required=True),
    "seed": Argument("one whole number from 0", lambda value: _is_whole(value) and 0 <= value < 2**32, required=True),
    "validation_fraction": Argument("a fraction such as 0.1", _is_fraction, required=True),
    "cache": _PATH,
    "settings": _SETTINGS,
}


def checked(given: Mapping[str, Any], arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """What is given, by argument: iterables as lists, NumPy's values as Python's own.

    Raises UserError for a value of the wrong type.
    """
    values = {name: _plain(value) for name, value in given.items()}
    for name, argument in arguments.items():
        value = values.get(name)
        if name in values and (argument.required if value is None else not argument.is_right(value)):
            raise InvalidInput(f"{name}={value!r}: expected {argument.expected}.")
    return values


def by_key(settings: Mapping[str, Any] | None, argument_of: Mapping[str, str]) -> dict[str, Any]:
    """Settings by dotted key. argument_of: the argument that sets a key.

    Raises UserError for a key that an argument sets: one of both would be ignored.
    """
    flat = dict(_flat(settings or {}))
    for key in flat:
        owners = [name for owned, name in argument_of.items() if owned == key or owned.startswith(f"{key}.")]
        if owners:
            raise InvalidInput(f"settings={{{key!r}: ...}}: the argument {owners[0]} sets that; give {owners[0]}=...")
    return flat


def _flat(tree: Mapping[str, Any], parents: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{parents}{key}.")
        else:
            yield f"{parents}{key}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic | pd.Series | pd.Index):
        return value.tolist()
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Path | Mapping)
    return list(map(_plain, value)) if is_list else value
