"""Which slice of a source a task reads, and how far it has got."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class SourceSlice:
    """The share of a source that one of `count` tasks reads."""

    index: int = 0
    """Number of the task, from 0."""
    count: int = 1
    """Number of tasks."""

    def select(self, items: Sequence[T]) -> list[T]:
        """This slice's contiguous range of `items`; the ranges of all slices in order are the whole sequence."""
        # Contiguous, so that the slices in order give the same token stores for any number of tasks.
        return list(items[self.index * len(items) // self.count : (self.index + 1) * len(items) // self.count])


FULL = SourceSlice()
"""The whole source."""


@dataclass
class ReadProgress:
    """Updated by the reader of a source while it reads; shown and recorded by its caller."""

    done: float = 0
    """How much has been read, in the reader's own unit (bytes, files, documents)."""
    total: float | None = None
    """How much there is in all, in the same unit; None while unknown."""
    metadata: dict[str, str] = field(default_factory=dict)
    """What belongs in the manifest, such as the commit that a hub revision resolved to."""
    location: str = ""
    """The file that is read, for error messages; empty for sources that read none."""
    skip: Callable[[str, str], None] = field(default=lambda reason, sample: None)  # noqa: ARG005
    """Called with the reason and a sample of every file, row and conversation that the reader leaves out."""

    @property
    def fraction(self) -> float | None:
        """Fraction of the source that has been read; None while unknown."""
        return min(self.done / self.total, 1.0) if self.total else None

    def count(self, items: Iterable[T], total: int) -> Iterator[T]:
        """Pass on `items`, of which `total` are expected, and count them."""
        self.total = total
        for item in items:
            self.done += 1
            yield item
