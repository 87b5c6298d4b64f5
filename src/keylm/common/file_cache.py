"""Files that take a while to make and are kept in the cache."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from keylm.common.files import cache_folder, sha256


def cached_file(name: str, suffix: str, make: Callable[[Path], object]) -> Path:
    """A file of the cache, which is made if the cache lacks it or holds a damaged one.

    A hash of its content follows `name` in the name of the file: by it, a file that is empty or damaged is noticed.

    Args:
        name: Tells the file from all others, such as by a hash of what it is made from.
        suffix: Ending of the file's name, such as `.so`.
        make: Writes the file to the path that it is given, in a folder of its own.

    Raises:
        OSError: The cache cannot be written.
    """
    folder = cache_folder()
    for path in folder.glob(f"{name}-*{suffix}"):
        if path == _final_path(name, suffix, path):
            return path
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes may make it at once: each does so in a folder of its own, and renames the result.
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / f"made{suffix}"
        make(made)
        return made.replace(_final_path(name, suffix, made))


def _final_path(name: str, suffix: str, path: Path) -> Path:
    """Where a file with the content of `path` belongs."""
    return cache_folder() / f"{name}-{sha256(path)[:16]}{suffix}"
