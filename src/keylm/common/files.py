"""Files: JSON, atomic and durable writes, hashes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keylm.common.errors import UserError

CHECKSUMS = "SHA256SUMS"
"""The file with the hashes of the other files in a folder, in the format of `sha256sum`."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")


def unset_variable(path: str) -> str | None:
    """The first environment variable in a path that is not set: `DATA` of `$DATA/text`; None if all are."""
    return next((name for name in _VARIABLE.findall(path) if name not in os.environ), None)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from error
    return value


def refuse_lfs_pointer(path: Path) -> None:
    """Refuse a file that is what Git leaves in place of a large one if its extension LFS is not installed.

    Raises:
        UserError: it is.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise UserError(f"{path} is a Git LFS pointer, not the data; run `git lfs pull` in its folder")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line, atomically."""
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False, default=str)}\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old text or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        # Without it, a crash of the machine could leave the new name with no content.
        os.fsync(file.fileno())
    partial.replace(path)


def replace_folder(partial: Path, final: Path) -> None:
    """Move the complete folder `partial` to `final`, in place of what was there.

    The files reach the disk before the name changes, so that `final` is complete whenever it exists.
    """
    for path in partial.rglob("*"):
        if path.is_file():
            _fsync(path)
    _fsync(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _fsync(final.parent)


def link_or_copy(source: str, target: str) -> None:
    """Link a large file, which is never changed in place, where the disk has hard links; copy any other."""
    if source.endswith((".npy", ".safetensors")):
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)


def discard_folder(folder: Path) -> None:
    """Delete a folder, if it exists."""
    discarded = folder.with_name(f".{folder.name}.discarded")
    shutil.rmtree(discarded, ignore_errors=True)
    if folder.exists():
        # Renamed first, so that a kill leaves no half of it in its place.
        folder.rename(discarded)
        shutil.rmtree(discarded)


def _fsync(path: Path) -> None:
    """Flush a file or a folder (its list of names) to the disk."""
    is_windows = platform.system() == "Windows"
    if is_windows and path.is_dir():
        return  # it opens no folders, and flushes their lists itself
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """The folder for files that can be made again at any time: `$XDG_CACHE_HOME/keylm`, or `~/.cache/keylm`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keylm"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _sha256_as_of(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001
    return sha256(path)


def cached_sha256(path: Path) -> str:
    """SHA-256 of a file, computed once per process as long as its size and its modification time stay the same."""
    status = path.stat()
    return _sha256_as_of(path, status.st_size, status.st_mtime_ns)


def write_checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Write `SHA256SUMS` into a folder, for the files of these relative names; return their hashes by name."""
    hashes = {name: sha256(folder / name) for name in sorted(names)}
    write_text(folder / CHECKSUMS, "".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
    return hashes


def changed_files(folder: Path) -> list[str]:
    """Names of the files that `SHA256SUMS` of a folder lists and that are absent or have another hash."""
    hashes = read_checksums(folder)
    return [name for name in hashes if not (folder / name).is_file() or sha256(folder / name) != hashes[name]]


def read_checksums(folder: Path) -> dict[str, str]:
    """The hashes that `SHA256SUMS` of a folder lists, by name."""
    lines = (line.split("  ", 1) for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in lines}
