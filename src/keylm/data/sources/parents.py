"""Reading the sources that another source is made from, as training sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from keylm.common.documents import Document
from keylm.common.held_out import HeldOut
from keylm.data.sources.files import Clean, validation_digests
from keylm.recipe.sources import SourceConfig

T = TypeVar("T")


@dataclass(frozen=True)
class ParentSources:
    """All sources of a mixture, and what decides which of their documents are trained on."""

    sources: Sequence[SourceConfig] = ()
    make_cleaner: Callable[[SourceConfig], Clean] = field(default=lambda _: lambda document: document)
    """Makes the cleaner of a source's documents."""
    validation_fraction: float = 0.0
    """Fraction of the documents that is held out, by the digest of the cleaned document."""

    def named(self, name: str) -> SourceConfig:
        """The source with this name.

        Raises:
            KeyError: there is none.
        """
        return {source.name: source for source in self.sources}[name]

    def training_documents(self, source: SourceConfig, documents: Iterable[Document]) -> Iterator[Document]:
        """A source's `documents`, cleaned, without those that are dropped or held out, up to `source.max_bytes`."""
        # The same steps as in `prepare`: text that it drops or holds out must not come back inside another source.
        held_out = HeldOut(self.validation_fraction, validation_digests(source, self.make_cleaner(source)))
        for document in held_out.settle(self._cleaned_documents(source, documents)):
            if document.digest not in held_out:
                yield document

    def _cleaned_documents(self, source: SourceConfig, documents: Iterable[Document]) -> Iterator[Document]:
        clean, remaining_bytes = self.make_cleaner(source), source.max_bytes or float("inf")
        for document in documents:
            cleaned = clean(document)
            if isinstance(cleaned, str):
                continue
            yield cleaned
            # Held-out documents count too: `prepare` stops at the same document.
            remaining_bytes -= cleaned.num_bytes
            if remaining_bytes <= 0:
                return


NO_PARENTS = ParentSources()
"""For sources that are not made from others."""


def interleave(streams: Iterable[Iterable[T]]) -> Iterator[T]:
    """One item of each stream in turn; when a stream ends, the others go on."""
    # A stream is put back only after it gave an item, so one that has ended drops out by itself.
    waiting = deque(map(iter, streams))
    while waiting:
        stream = waiting.popleft()
        for item in islice(stream, 1):
            yield item
            waiting.append(stream)
