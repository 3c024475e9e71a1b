"""ftbench: which part of a pretrained decoder to fine-tune, which token to read, and what each choice costs."""

__version__ = "0.1.0"


class UserError(Exception):
    """What a user gave is wrong.

    The message names what was given, what was expected and the remedy. The CLI prints it
    without a traceback and exits with code 2; every other exception is a bug or a failed run.
    """
