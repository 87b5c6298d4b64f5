"""`repetition`: random words, repeated, which teach a small model to copy from its context."""

from __future__ import annotations

from collections.abc import Iterator

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.instructions import repetition
from keylm.recipe.sources import RepetitionConfig


class RepetitionSource(SourceType[RepetitionConfig]):
    """Repeated phrases, of the parents' words among others."""

    def read_documents(self, source: RepetitionConfig, request: ReadRequest) -> Iterator[Document]:
        """Generate `source.num_documents` texts."""
        texts = repetition.generate_repetition(source.num_documents, request.seed, repetition.words_of(request.parents))
        return request.progress.count((Document(text=text) for text in texts), source.num_documents)
