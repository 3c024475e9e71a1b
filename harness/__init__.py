"""ftbench: which part of a pretrained decoder to fine-tune, which token to read, and what each choice costs."""

from harness.config.strategy import Adapter, Input, Strategy
from harness.errors import UserError

__all__ = ["Adapter", "Input", "Strategy", "UserError", "__version__"]
__version__ = "0.1.0"
