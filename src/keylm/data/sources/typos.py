"""`typos`: mistyped text next to what was meant, made from the documents of other sources."""

from __future__ import annotations

from collections.abc import Iterator

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.recipe.sources import TyposConfig
from keylm.typos.generate import generate_typos


class TyposSource(SourceType[TyposConfig]):
    """The parents' documents, mistyped."""

    def read_documents(self, source: TyposConfig, request: ReadRequest) -> Iterator[Document]:
        """Generate up to `source.num_documents` documents; fewer if the parents end earlier."""
        return request.progress.count(generate_typos(request.parents, source, request.seed), source.num_documents)
