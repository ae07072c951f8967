"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Input from outside is unusable: one line that names the file, row or key and says what to do."""
