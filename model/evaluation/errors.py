"""The error that is a person's to mend: it is shown without a traceback."""


class InputError(ValueError):
    """What was given cannot be measured. The message names the file, key or line, and the remedy."""
