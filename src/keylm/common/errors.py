"""Failures. The command line prints the message of each as one sentence, without a traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

_USERS_MISTAKES = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EADDRINUSE, errno.EADDRNOTAVAIL),
}
"""What the system refuses because of a name or a right that the user can change."""
_MAX_REASON = 300
"""Characters of another library's message; some print the whole file."""


class KeyLMError(Exception):
    """A failure that is not the user's mistake: a full disk, a NaN loss, a corrupt file. Exit code 1."""

    exit_code = 1


class UserError(KeyLMError):
    """A mistake that the user can fix. The message names the file, key or step and the way out. Exit code 2."""

    exit_code = 2


class StoppedError(KeyLMError):
    """Someone stopped the work by a signal. The exit code is 128 plus its number, as in shells."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class MissingSourceError(UserError):
    """A source is not available: a gated or unknown data set, no network, no such file."""


def as_keylm_error(error: Exception) -> KeyLMError:
    """Any exception as one whose message is a sentence; one that nobody expected names its type."""
    match error:
        case KeyLMError():
            return error
        case MemoryError():
            return KeyLMError("the memory is not enough for this: close other programs, or ask for less")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return KeyLMError(
                f"the disk is full ({_subject(error)}): free some space and run again; what is done is kept"
            )
        case OSError(errno=None):
            # numpy gives no number where a disk is full: "21120 requested and 7936 written".
            return KeyLMError(f"a file could not be read or written in full ({_reason(error)}): is the disk full?")
        case OSError():
            kind = UserError if error.errno in _USERS_MISTAKES else KeyLMError
            return kind(f"{_subject(error)}: {error.strerror or _reason(error)}")
    # safetensors and pyarrow raise errors of their own, with the system's message.
    if os.strerror(errno.ENOSPC) in str(error):
        return KeyLMError("the disk is full: free some space and run again; what is done is kept")
    return KeyLMError(f"unexpected {type(error).__name__} ({_reason(error)}): `keylm --debug ...` shows where")


def name_some(names: Sequence[str], limit: int) -> str:
    """The first `limit` names in a row, and how many more there are, for a message."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _subject(error: OSError) -> str:
    return f"cannot use {error.filename}" if error.filename else "the system refused"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_REASON] or "no reason given"
