"""Metrics as JSON lines, exact across restarts: what a resumed run will measure again is dropped first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keylm.run import write_text


class Metrics:
    """A `metrics.jsonl` with one JSON object per line; every object has a `step`."""

    def __init__(self, path: Path, steps_done: int) -> None:
        kept = [row for row in read(path) if row["step"] <= steps_done]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a metrics file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]
