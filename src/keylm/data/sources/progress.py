"""What a reader is to read, how far it is, and what it found out on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class SourceSlice:
    """The share of a source that one of `count` tasks reads."""

    index: int = 0
    """Which task it is, counted from 0."""
    count: int = 1
    """How many tasks there are."""

    def of(self, items: Sequence[T]) -> list[T]:
        """A contiguous range of the items; the ranges of all tasks, one after the other, are the whole."""
        return list(items[self.index * len(items) // self.count : (self.index + 1) * len(items) // self.count])


FULL = SourceSlice()
"""All of a source."""


@dataclass
class ReadProgress:
    """Kept up to date by whoever reads a source, for whoever shows or records it."""

    done: float = 0
    """How much of the source has been read, in the reader's own unit."""
    total: float | None = None
    """How much there is, in the same unit; `None` as long as nobody knows."""
    facts: dict[str, str] = field(default_factory=dict)
    """What is worth keeping in the manifest, such as the commit that a revision stood for."""

    @property
    def share(self) -> float | None:
        """Share of the source that has been read, if it is known."""
        return min(self.done / self.total, 1.0) if self.total else None
