"""Which documents of a source were dropped: a count for every reason, and a few documents to inspect."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from keylm.common.files import read_json, write_json

_EXCERPT_CHARACTERS = 300


class DropLog:
    """Counts by reason, and the beginnings of the first `num_samples` documents of each.

    It is not kept over a stop: whoever reads a source again counts again from the start.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.counts: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}

    def add(self, reason: str, text: str) -> None:
        """Count a document that is dropped."""
        self.counts[reason] += 1
        self._add_samples(reason, [text[:_EXCERPT_CHARACTERS]])

    def add_saved(self, path: Path) -> None:
        """Add the log that `save` wrote for an earlier slice of the same source."""
        saved = read_json(path)
        self.counts.update(saved["counts"])
        for reason, texts in saved["samples"].items():
            self._add_samples(reason, texts)

    def save(self, path: Path) -> None:
        """Write the log as JSON."""
        write_json(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """`counts` and `samples` by reason, sorted."""
        return {"counts": dict(sorted(self.counts.items())), "samples": dict(sorted(self.samples.items()))}

    def _add_samples(self, reason: str, texts: list[str]) -> None:
        samples = self.samples.setdefault(reason, [])
        # The first ones, not random ones: merged slices then give the samples of an undivided source.
        samples.extend(texts[: self.num_samples - len(samples)])
