"""Options of the table in `options.py`, as Typer takes them: from the signature of a command's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from harness.config.options import Option, options_of


def declared(option: Option) -> Any:
    """What Typer needs to know of an option beside its type and default."""
    return typer.Option(f"--{option.name}", help=option.help.replace("`", ""), min=option.minimum)


def with_options_of(target: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Typer reads a command's options from its signature: give the function those of the table, beside its own."""

    def with_options(function: Callable[..., None]) -> Callable[..., None]:
        given = inspect.signature(function, eval_str=True).parameters.values()
        own = [parameter for parameter in given if parameter.kind is not parameter.VAR_KEYWORD]
        signature = inspect.Signature([*own, *map(_parameter, options_of(target))])
        function.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]  # what inspect looks for
        return function

    return with_options


def _parameter(option: Option) -> inspect.Parameter:
    kind = option.type if option.default is not None else option.type | None
    annotation = Annotated[kind, declared(option)]
    return inspect.Parameter(
        option.parameter, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation
    )
