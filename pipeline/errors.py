"""The two errors that are told in one line, without a traceback."""


class InputError(ValueError):
    """What was given cannot be used. The message names the file, row or field, and the remedy."""


class WorkError(RuntimeError):
    """The work broke off for a reason outside this program. The message says what became of it and how to go on."""
