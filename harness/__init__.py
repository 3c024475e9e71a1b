"""ftbench: which part of a pretrained decoder to fine-tune, which token to read, and what each choice costs."""

import importlib
from typing import TYPE_CHECKING, Any

from harness.config.strategy import IA3, Adapter, Input, PrefixTuning, PromptTuning, Strategy
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.api.compare import compare
    from harness.api.comparison import Comparison
    from harness.api.text_classifier import TextClassifier

__all__ = [
    "IA3",
    "Adapter",
    "Comparison",
    "Input",
    "PrefixTuning",
    "PromptTuning",
    "Strategy",
    "TextClassifier",
    "UserError",
    "__version__",
    "compare",
]
__version__ = "0.1.0"
# Imported when they are asked for: they bring PyTorch, which a strategy and `ftbench --help` do without.
_LAZY = {
    "compare": "harness.api.compare",
    "Comparison": "harness.api.comparison",
    "TextClassifier": "harness.api.text_classifier",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
