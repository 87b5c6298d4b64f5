"""Which files a path, folder or glob pattern stands for, and which of them are left out, with the reason."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from keylm.common.errors import MissingSourceError, UserError
from keylm.common.files import unset_variable
from keylm.data.sources.file_formats import HTML_SUFFIXES, SUFFIXES, TEXT_SUFFIXES, can_read_html, suffix_of

HIDDEN = "hidden file"
NOT_REGULAR = "broken link or special file"
OTHER_FORMAT = "file of another format"
NO_HTML_READER = "web page, for which `pip install 'keylm[html]'`"
ABOUT_THE_DATA = "README or license beside the data"

# Also what macOS (`._notes.txt`) and Office (`~$notes.txt`) put next to a file that is copied or open.
_HIDDEN_PREFIXES = (".", "~$")
_ABOUT_THE_DATA = re.compile(
    r"(readme|licen[cs]e|copying|notice|citation|changelog|contributing|authors|code[-_]of[-_]conduct)(?![a-z])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FileSelection:
    """What is read of a source, and what is not."""

    files: list[Path]
    """Sorted, each once."""
    left_out: dict[Path, str]
    """Files and folders that match but are not read, with the reason, sorted."""


def select_files(patterns: Sequence[str]) -> FileSelection:
    """The files that all the patterns stand for.

    A pattern is a path, a folder, which stands for all files below it, or a glob pattern. `~` and `$VARIABLES` are
    expanded unless something has that very name. Links are followed.

    Raises:
        MissingSourceError: a variable is not set, or a pattern matches nothing that can be read.
        UserError: a pattern is empty, or a file or folder may not be read.
    """
    if not patterns or not all(map(str.strip, patterns)):
        raise UserError("the `path` of a source is empty: name a file, a folder or a pattern")
    files: set[Path] = set()
    left_out: dict[Path, str] = {}
    for pattern in patterns:
        selection = _select_pattern(pattern)
        files.update(selection.files)
        left_out.update(selection.left_out)
    # A file that one pattern leaves out may be named outright by another.
    return FileSelection(sorted(files), {path: left_out[path] for path in sorted(left_out.keys() - files)})


def _select_pattern(pattern: str) -> FileSelection:
    try:
        path = _expand(pattern)
        if path.exists() and not path.is_dir():
            # A file that is named outright is read or refused, whatever its name.
            return FileSelection([path], {})
        candidates = list(_walk(path) if path.is_dir() else _glob(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {getattr(error, 'filename', None) or pattern}: {reason}") from error
    reasons = _reasons_to_leave_out(candidates)
    files = [file for file in candidates if file not in reasons]
    if not files:
        left_out = f"; left out: {', '.join(sorted(set(reasons.values())))}" if reasons else ""
        raise MissingSourceError(f"`{pattern}` matches no file that can be read ({', '.join(SUFFIXES)}){left_out}")
    return FileSelection(files, reasons)


def _expand(pattern: str) -> Path:
    """The pattern with `~` and `$VARIABLES` expanded, unless something has that very name."""
    literal = Path(pattern)
    if literal.exists():
        return literal
    unset = unset_variable(pattern)
    if unset and not any(_glob(literal)):
        raise MissingSourceError(
            f"the path `{pattern}` needs the environment variable {unset}, which is not set, and no file has that "
            f"very name"
        )
    try:
        return literal if unset else Path(os.path.expandvars(pattern)).expanduser()
    except RuntimeError as error:
        raise MissingSourceError(f"the path `{pattern}` names a home folder that does not exist") from error


def _glob(path: Path) -> Iterator[Path]:
    """What matches a glob pattern: files, and all files below the folders that match."""
    anchor, parts = Path(path.anchor), path.relative_to(path.anchor).parts
    if "**" in parts:
        # Not by pathlib, which follows no links there and passes over folders that it may not enter.
        root = anchor.joinpath(*parts[: next(n for n, part in enumerate(parts) if glob.has_magic(part))])
        rest = parts[len(root.relative_to(anchor).parts) :]
        files = _walk(root) if root.is_dir() else iter(())
        yield from (file for file in files if _matches(file.relative_to(root).parts, rest))
        return
    for match in anchor.glob(str(Path(*parts))):
        yield from _walk(match) if match.is_dir() and not match.name.startswith(_HIDDEN_PREFIXES) else [match]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, or one of the folders that it is in, matches a pattern with `**`."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _walk(root: Path) -> Iterator[Path]:
    """The files below a folder, and its hidden folders as they are; links are followed, each folder is read once."""
    seen: set[tuple[int, int]] = set()
    for name, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        folder = Path(name)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (folder / file for file in files)
        yield from (folder / subfolder for subfolder in folders if subfolder.startswith(_HIDDEN_PREFIXES))
        # In place, which tells `os.walk` where to go, and in which order.
        folders[:] = sorted(subfolder for subfolder in folders if not subfolder.startswith(_HIDDEN_PREFIXES))


def _raise(error: OSError) -> None:
    raise error


def _reasons_to_leave_out(candidates: list[Path]) -> dict[Path, str]:
    has_rows = any(suffix_of(path) not in (None, *TEXT_SUFFIXES) for path in candidates)
    reasons = {path: _reason_to_leave_out(path, has_rows) for path in candidates}
    return {path: reason for path, reason in reasons.items() if reason}


def _reason_to_leave_out(path: Path, has_rows: bool) -> str | None:
    suffix = suffix_of(path)
    if path.name.startswith(_HIDDEN_PREFIXES):
        return HIDDEN
    if not path.is_file():
        return NOT_REGULAR
    if suffix is None:
        return OTHER_FORMAT
    if suffix in HTML_SUFFIXES and not can_read_html():
        return NO_HTML_READER
    # Beside rows such a file describes them. In a folder of texts it may be one of the texts.
    if has_rows and suffix in TEXT_SUFFIXES and _ABOUT_THE_DATA.match(path.name):
        return ABOUT_THE_DATA
    return None
