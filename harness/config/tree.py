"""Configurations as nested dictionaries: reading, changing and comparing them; messages about wrong ones.

A dotted key, such as "training.epochs", names a value in a tree.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import UserError, did_you_mean, nearest

# The suites that have a name: `configs/` of the repository, which an installed package has, too.
BUILT_IN = Path(__file__).parents[1] / "configs"


def read_file(file: Path) -> dict[str, Any]:
    """Read a YAML file, or that of the built-in suite with this name, such as `textbook`.

    An empty one is an empty tree. Raises UserError where it can't be read, or holds no keys and values.
    """
    built_in = BUILT_IN / f"{file}.yaml"
    found = built_in if file.name == str(file) and not file.exists() and built_in.is_file() else file
    try:
        tree = yaml.safe_load(found.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        named = sorted(suite.stem for suite in BUILT_IN.glob("*.yaml"))
        raise UserError(
            f"configuration file {str(file)!r} does not exist: check the path; a relative one counts from "
            f"{Path.cwd()}. {did_you_mean(str(file), named)}Suites that have a name are {', '.join(named)}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration file {str(file)!r} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"configuration file {str(file)!r} is not YAML: {_where(error)}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"configuration file {str(file)!r}: expected keys and values, such as `strategy: full`.")
    return tree


def _where(error: yaml.YAMLError) -> str:
    """The problem and its line, counted from 1, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark else " ".join(str(error).split())


def set_key(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Raises UserError where a key on the way holds a value instead of keys."""
    *parents, last = dotted.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise UserError(f"configuration key {parent!r} is {tree!r}: expected keys below it, such as {dotted!r}.")
    tree[last] = value


def scalar(text: str) -> Any:
    """The value that YAML reads, but 1e-4, which is a text in YAML 1.1, is a number."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def get_key(tree: dict[str, Any], dotted: str) -> Any:
    """The value, or None where the key is absent."""
    value: Any = tree
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def merged(tree: dict[str, Any], differences: dict[str, Any]) -> dict[str, Any]:
    """A copy of `tree` in which `differences` override values, at any depth."""
    result = copy.deepcopy(tree)
    for key, value in differences.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two trees differ, with both values; None stands for an absent one."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*left, *(key for key in right if key not in left)]:
        values = left.get(key), right.get(key)
        if any(isinstance(value, dict) for value in values):
            below = differences(*(value if isinstance(value, dict) else {} for value in values))
            found |= {f"{key}.{name}": pair for name, pair in below.items()}
        elif values[0] != values[1]:
            found[key] = values
    return found


def first_mistake(error: ValidationError) -> str:
    """Place and message of the first mistake in a file that the harness wrote."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The mistakes in values for `model`, one a line: the key, what was given and what was expected.

    The alternatives of a union share a line.
    """
    known = _fields(model)
    expected: dict[str, list[str]] = {}
    hints: dict[str, str] = {}
    for mistake in error.errors():
        key = _key_of(mistake, known)
        if mistake["type"] == "missing":
            expected[f"configuration key {'.'.join(map(str, mistake['loc']))!r} is missing."] = []
            continue
        if mistake["type"] in ("extra_forbidden", "invalid_key"):
            expected[f"unknown configuration key {key!r}: {_nearest_keys(key, known)}"] = []
        else:
            given = f"configuration key {key!r} is {mistake['input']!r}: expected "
            expected.setdefault(given, []).append(_expectation(key, mistake, known))
            hints[given] = hints.get(given) or _hint(mistake)
    return "\n".join(
        given + " or ".join(alternatives) + hints.get(given, "") for given, alternatives in expected.items()
    )


def _key_of(mistake: ErrorDetails, known: list[str]) -> str:
    """The dotted key of a mistake, without the steps that pydantic adds for the alternatives of a union."""
    steps = [str(step) for step in mistake["loc"]]
    if mistake["type"] != "extra_forbidden":
        while len(steps) > 1 and ".".join(steps) not in known:
            steps.pop()
    return ".".join(steps)


def _nearest_keys(key: str, known: list[str]) -> str:
    parent, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if parent and other.startswith(f"{parent}.")}
    near = [other for other in known if other.rpartition(".")[2] == name]
    near = near or [siblings[other] for other in nearest(name, siblings)]
    if not near and not siblings:
        near = nearest(key, known)
    return f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(siblings.values() or known)}."


def _expectation(key: str, mistake: ErrorDetails, known: list[str]) -> str:
    if mistake["type"] == "model_type":
        return f"keys below it: {', '.join(other for other in known if other.startswith(f'{key}.'))}"
    return mistake["msg"].removeprefix("Input should be ")


def _hint(mistake: ErrorDetails) -> str:
    """The option that was probably meant, as the end of a message."""
    given = mistake["input"]
    if mistake["type"] != "literal_error" or not isinstance(given, str):
        return ""
    options = [option.strip("'") for option in mistake.get("ctx", {})["expected"].replace(" or ", ", ").split(", ")]
    question = did_you_mean(given, options).rstrip()
    return f"; {question}" if question else ""


def _fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of all values of a model."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        alternatives = (field.annotation, *get_args(field.annotation))
        part = next((one for one in alternatives if isinstance(one, type) and issubclass(one, BaseModel)), None)
        names += _fields(part, f"{prefix}{name}.") if part else [prefix + name]
    return names
