"""What was dropped from a source and why: a count for every reason, and a few documents to look at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from keylm.common.files import read_json, write_json

_EXCERPT_CHARACTERS = 300


class DropLog:
    """Counts by reason, and the beginnings of the first `num_samples` documents of each.

    Whoever reads a source again, after a stop, counts it again from the start.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.counts: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}

    def add(self, reason: str, text: str) -> None:
        """Count a document that is dropped."""
        self.counts[reason] += 1
        self._keep(reason, [text[:_EXCERPT_CHARACTERS]])

    def load(self, path: Path) -> None:
        """Add what `save` wrote, of an earlier part of the same source."""
        saved = read_json(path)
        self.counts.update(saved["counts"])
        for reason, texts in saved["samples"].items():
            self._keep(reason, texts)

    def save(self, path: Path) -> None:
        """Write everything as JSON, reasons in the order of the alphabet."""
        write_json(path, self.facts())

    def facts(self) -> dict[str, Any]:
        """`counts` and `samples` by reason."""
        return {"counts": dict(sorted(self.counts.items())), "samples": dict(sorted(self.samples.items()))}

    def _keep(self, reason: str, texts: list[str]) -> None:
        kept = self.samples.setdefault(reason, [])
        kept.extend(texts[: self.num_samples - len(kept)])
