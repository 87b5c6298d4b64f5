"""The sources that another source is made of, read as training reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from keylm.common.documents import Document, is_held_out
from keylm.recipe.sources import SourceConfig

T = TypeVar("T")
Clean = Callable[[Document], Document | str]


@dataclass(frozen=True)
class ParentSources:
    """All sources of a mixture, and what decides which of their documents are trained on."""

    sources: Sequence[SourceConfig] = ()
    cleaner: Callable[[SourceConfig], Clean] = field(default=lambda _: lambda document: document)
    """Makes what cleans the documents of a source, and gives the reason where it drops one."""
    validation_fraction: float = 0.0
    """Share of the documents that are held out, by the digest of the cleaned document."""

    def named(self, name: str) -> SourceConfig:
        """The source of that name.

        Raises:
            KeyError: there is none.
        """
        return {source.name: source for source in self.sources}[name]

    def trained_on(self, source: SourceConfig, documents: Iterable[Document]) -> Iterator[Document]:
        """Those of a source's documents, cleaned, that are neither dropped nor held out, up to `source.max_bytes`."""
        clean, room = self.cleaner(source), source.max_bytes or float("inf")
        for document in documents:
            cleaned = clean(document)
            if isinstance(cleaned, str):
                continue
            if not is_held_out(cleaned.digest, self.validation_fraction):
                yield cleaned
            room -= cleaned.num_bytes
            if room <= 0:
                return


def interleave(streams: Iterable[Iterable[T]]) -> Iterator[T]:
    """One item of each stream in turn; the others go on when one ends."""
    waiting = deque(map(iter, streams))
    while waiting:
        stream = waiting.popleft()
        for item in islice(stream, 1):
            yield item
            waiting.append(stream)
