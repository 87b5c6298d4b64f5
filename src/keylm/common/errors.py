"""The ways in which a command can fail on purpose, each ending in one sentence on the screen."""


class KeyLMError(Exception):
    """A failure that the user did not cause: a full disk, a NaN, a corrupt file. Exit code 1."""

    exit_code = 1


class UserError(KeyLMError):
    """A mistake that the user can mend: the message names the file, key or step and the way out. Exit code 2."""

    exit_code = 2


class MissingSourceError(UserError):
    """A source cannot be had: a gated or unknown data set, no network, no such file."""
