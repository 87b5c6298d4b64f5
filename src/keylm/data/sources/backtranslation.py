"""`backtranslation`: excerpts of real documents as answers, with requests written for them by rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.instructions.backtranslation.generate import generate_conversations
from keylm.recipe.sources import BacktranslationConfig, BaseSourceConfig


class BacktranslationSource(SourceType[BacktranslationConfig]):
    """Conversations made from the plain text of `source.from_source`, its only parent.

    Args:
        source_type: the registry's lookup, for what the inner source answers for itself.
    """

    def __init__(self, source_type: Callable[[BaseSourceConfig], SourceType[Any]]) -> None:
        self._source_type = source_type

    def read_documents(self, source: BacktranslationConfig, request: ReadRequest) -> Iterator[Document]:
        """Make conversations from each document."""
        return generate_conversations(request.parents, source, request.seed)

    def availability(self, source: BacktranslationConfig) -> str:
        """That of the inner source."""
        return self._source_type(source.from_source).availability(source.from_source)

    def pin(self, source: BacktranslationConfig) -> BacktranslationConfig:
        """Pin the inner source."""
        inner = self._source_type(source.from_source).pin(source.from_source)
        return source.model_copy(update={"from_source": inner})

    def origin(self, source: BacktranslationConfig) -> BaseSourceConfig:
        """The inner source."""
        return source.from_source

    def label(self, source: BacktranslationConfig) -> str:
        """The inner source's label, and what was done to it."""
        return f"{self._source_type(source.from_source).label(source.from_source)}, with requests"

    def hub_dataset(self, source: BacktranslationConfig) -> str | None:
        """That of the inner source."""
        return self._source_type(source.from_source).hub_dataset(source.from_source)
