"""`topics`: short invented texts, each about a topic of its own."""

from __future__ import annotations

from collections.abc import Iterator

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.instructions.topics import generate_texts
from keylm.recipe.sources import TopicsConfig


class TopicsSource(SourceType[TopicsConfig]):
    """Texts in the words and sentences of training."""

    def read_documents(self, source: TopicsConfig, request: ReadRequest) -> Iterator[Document]:
        """Generate `source.num_documents` texts."""
        documents = (Document(text=text) for text in generate_texts(source.num_documents, request.seed))
        return request.progress.count(documents, source.num_documents)
