"""The one exception for what a user gave."""


class UserError(Exception):
    """What a user gave is wrong.

    The message names what was given, what was expected and the remedy. The CLI prints it
    without a traceback and exits with code 2; every other exception is a bug or a failed run.
    """
