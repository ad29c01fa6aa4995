"""The errors that are told in one line, without a traceback."""


class InputError(ValueError):
    """What was given cannot be used. The message names the file, row or field, and the remedy."""


class UnreachableError(InputError):
    """A file that cannot be fetched now: trying again may help."""


class WorkError(RuntimeError):
    """The work broke off for a reason outside this program. The message says what became of it and how to go on."""
