"""The error that is a person's to mend: it is shown without a traceback."""


class InputError(ValueError):
    """What was given cannot be used. The message names the file, row or field, and the remedy."""
