"""The registry of strategies: the modules of this folder, installed entry points, and files by path.

A strategy module holds one `strategy = Strategy(...)`; its docstring's first line describes it.
Other packages plug in through the entry point group `ftbench.strategies`, whose entries name such a
module (`mine = "package.module"`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.config.strategy import Strategy
from harness.errors import UserError, did_you_mean

ENTRY_POINT_GROUP = "ftbench.strategies"
# What STRATEGY=all compares: from the least trained to the most, then the variants of reading, input and attention. The
# others answer narrower questions, and would double the time that all of them take.
ALL = (
    "head_only",
    "last_block",
    "last_two_blocks",
    "full",
    "lora",
    "first_token",
    "mean_pool",
    "last_padded",
    "no_causal_mask",
)


@dataclass(frozen=True)
class Entry:
    """A strategy with where it came from. sha256: of the file that declares it; of a plug-in's whole package."""

    name: str
    strategy: Strategy
    description: str
    origin: str
    sha256: str


def names() -> list[str]:
    """Names that `load` takes: the built-in strategies, then installed plug-ins.

    Raises UserError where a plug-in has the name of a built-in strategy.
    """
    built_in, plug_ins = built_in_names(), _plug_ins()
    for name in plug_ins.keys() & set(built_in):
        raise UserError(
            f"the installed plug-in {plug_ins[name].value!r} has the name of the built-in strategy {name!r}: "
            "rename its entry point, or uninstall the package."
        )
    return [*built_in, *sorted(plug_ins)]


def built_in_names() -> list[str]:
    """In order of display: those of `ALL`, then the others."""
    return [*ALL, *sorted(_built_in() - set(ALL))]


def load(name: str, also_known: Sequence[str] = ()) -> Entry:
    """The strategy called `name`, or declared by the file `name` where it ends in `.py` (this runs its code).

    also_known: other names that the user may have meant.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    if name in _built_in():
        return _entry(name, importlib.import_module(f"{__name__}.{name}"), origin="built in")
    plug_ins = _plug_ins()
    if name in plug_ins:
        return _entry(name, _import(name, plug_ins[name].load), origin=f"entry point {plug_ins[name].value}")
    known = [*names(), *also_known]
    hint = did_you_mean(name, known)
    raise UserError(f"unknown strategy {name!r}: {hint}Known are {', '.join(known)}; a path to a .py file works too.")


def _built_in() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)}


def _plug_ins() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _from_file(path: Path) -> Entry:
    if not path.is_file():
        raise UserError(f"strategy file {str(path)!r} does not exist: give the path of a module that declares one.")
    spec = importlib.util.spec_from_file_location(f"ftbench_strategy_{path.stem.replace('.', '_')}", path)
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    loader, module = spec.loader, importlib.util.module_from_spec(spec)

    def execute() -> ModuleType:
        sys.modules[spec.name] = module  # where dataclasses look for the module of a class
        loader.exec_module(module)
        return module

    return _entry(path.stem, _import(str(path), execute), origin=f"file {path.resolve()}")


def _import(name: str, importer: Callable[[], ModuleType]) -> ModuleType:
    try:
        return importer()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        raise UserError(f"strategy {name!r} can't be loaded: {type(error).__name__}: {error}") from error


def _entry(name: str, module: ModuleType, origin: str) -> Entry:
    declared = getattr(module, "strategy", None)
    if not isinstance(declared, Strategy):
        raise UserError(
            f"strategy {name!r} ({origin}) declares no strategy: its module needs a line "
            "`strategy = Strategy(...)`, with `from harness import Strategy`."
        )
    lines = (module.__doc__ or "").strip().splitlines()
    return Entry(name, declared, lines[0] if lines else "", origin, _sha256_of(module))


def _sha256_of(module: ModuleType) -> str:
    """Of its file; where it belongs to another package, of every source of that one, which it may import."""
    assert module.__file__, "it was imported from a file"
    own, package = Path(module.__file__), (module.__package__ or "").partition(".")[0]
    if package in ("", __name__):
        return hashlib.sha256(own.read_bytes()).hexdigest()
    folders = [Path(folder) for folder in sys.modules[package].__path__]
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
