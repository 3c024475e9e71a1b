"""The exception for a user's mistake."""


class UserError(Exception):
    """Something that a user gave is wrong.

    The message names what was given, what was expected and the remedy. The CLI prints it
    without a traceback and exits with code 2; any other exception is a bug or a failed run.
    """
