"""ftbench: which part of a pretrained decoder to fine-tune, which token to read, and what each choice costs."""

from harness.config.strategy import IA3, Adapter, Input, PrefixTuning, PromptTuning, Strategy
from harness.errors import UserError

__all__ = ["IA3", "Adapter", "Input", "PrefixTuning", "PromptTuning", "Strategy", "UserError", "__version__"]
__version__ = "0.1.0"
