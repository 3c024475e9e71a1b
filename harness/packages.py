"""Packages that an installation may lack, since they are extras."""

from __future__ import annotations

import importlib.util

from harness.errors import UserError


def require(package: str, extra: str, asked: str) -> None:
    """Raises UserError where the package is not installed.

    extra: of ftbench, that brings it. asked: what needs it, as the user gave it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{asked}: the package {package} is not installed; `pip install 'ftbench[{extra}]'` brings it.")
