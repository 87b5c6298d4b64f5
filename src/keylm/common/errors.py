"""Expected failures. The command line prints the message of each as one sentence, without a traceback."""


class KeyLMError(Exception):
    """A failure that is not the user's mistake: a full disk, a NaN loss, a corrupt file. Exit code 1."""

    exit_code = 1


class UserError(KeyLMError):
    """A mistake that the user can fix. The message names the file, key or step and the way out. Exit code 2."""

    exit_code = 2


class MissingSourceError(UserError):
    """A source is not available: a gated or unknown data set, no network, no such file."""
