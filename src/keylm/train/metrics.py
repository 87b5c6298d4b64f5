"""Metrics as JSON lines, exact across restarts: what a resumed run will measure again is dropped first.

TensorBoard and trackio get the same numbers where they are installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keylm.common.errors import KeyLMError
from keylm.common.files import write_text
from keylm.train.trackers import installed_trackers


class Metrics:
    """A `metrics.jsonl` with one JSON object per line; every object has a `step`.

    Raises:
        KeyLMError: the disk is full or refuses, when made and at every `write`.
    """

    def __init__(self, path: Path, steps_done: int) -> None:
        kept = [row for row in read_metrics(path) if _is_done(row, steps_done)]
        self._path = path
        try:
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._refused(error) from error
        self._trackers = installed_trackers(path.parent, steps_done)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        line = json.dumps(row).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise self._refused(error) from error
        if written < len(line):
            raise self._refused(OSError("the disk is full"))
        for tracker in self._trackers:
            tracker.write(row)

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def _refused(self, error: OSError) -> KeyLMError:
        return KeyLMError(
            f"cannot write {self._path} ({error.strerror or error}): make room and run the same command again; "
            f"the last checkpoint is whole"
        )


class NullMetrics:
    """The metrics of a rank that is not the first: it keeps none."""

    def write(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a metrics file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _is_done(row: dict[str, Any], steps_done: int) -> bool:
    """A validation comes after the checkpoint of its step, and is made again by a run that begins at that step."""
    return bool(row["step"] < steps_done or (row["step"] == steps_done and "validation" not in row))
