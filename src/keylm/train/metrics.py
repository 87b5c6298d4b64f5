"""Metrics as JSON lines, consistent across restarts: rows that a resumed run will write again are dropped first.

TensorBoard and trackio receive the same numbers if they are installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keylm.common.errors import KeyLMError
from keylm.common.files import write_text
from keylm.train.trackers import installed_trackers

VALIDATION_KEYS = {"validation", "answers", "sample"}
"""What rows that follow a checkpoint have: bits per byte of held-out text and of held-out answers by source, and what
the model makes of a held-out prompt (`keylm.inference.samples.Sample`)."""


class Metrics:
    """A `metrics.jsonl` with one JSON object per line; every object has a `step`.

    Args:
        path: the file, which may exist.
        steps_done: where training resumes. Rows of later steps are dropped.

    Raises:
        KeyLMError: the file cannot be written, here and in `log`.
    """

    def __init__(self, path: Path, steps_done: int) -> None:
        self._path = path
        # A validation follows the checkpoint of its step, so a run that resumes at that step repeats it.
        rows = [
            row
            for row in read_metrics(path)
            if row["step"] < steps_done or (row["step"] == steps_done and not row.keys() & VALIDATION_KEYS)
        ]
        try:
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
            # Unbuffered: a kill loses no row, and a full disk is noticed at the row that did not fit.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._write_error(error) from error
        self._trackers = installed_trackers(path.parent, steps_done)

    def log(self, row: dict[str, Any]) -> None:
        """Append a row, which has a `step`."""
        line = json.dumps(row).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise self._write_error(error) from error
        # An unbuffered file may write part of the line without an error.
        if written < len(line):
            raise self._write_error(OSError("the disk is full"))
        for tracker in self._trackers:
            tracker.log(row)

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def _write_error(self, error: OSError) -> KeyLMError:
        return KeyLMError(
            f"cannot write {self._path} ({error.strerror or error}): free some space and run the same command again; "
            f"the last checkpoint is intact"
        )


class NullMetrics:
    """Discards the metrics of ranks other than the main process."""

    def log(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a metrics file. A last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
