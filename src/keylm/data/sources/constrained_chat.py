"""`constrained-chat`: real exchanges with constraints added to the request, and answers edited to satisfy them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.instructions import constrained_chat
from keylm.instructions.task import Example
from keylm.recipe.sources import BaseSourceConfig, ConstrainedChatConfig

_EXAMPLE_SEED_OFFSET = 2
"""Pretraining reads with the recipe's seed and SFT with the next one; examples get a third one, so that the same
exchanges come under other constraints."""


class ConstrainedChatSource(SourceType[ConstrainedChatConfig]):
    """The conversations of `source.from_source`, its only parent.

    Args:
        source_type: the registry's lookup, for what the inner source answers for itself.
    """

    def __init__(self, source_type: Callable[[BaseSourceConfig], SourceType[Any]]) -> None:
        self._source_type = source_type

    def read_documents(self, source: ConstrainedChatConfig, request: ReadRequest) -> Iterator[Document]:  # noqa: ARG002
        """Add constraints to the conversations that allow it."""
        return constrained_chat.generate_constrained_chat(request.parents, request.seed)

    def availability(self, source: ConstrainedChatConfig) -> str:
        """That of the inner source."""
        return self._source_type(source.from_source).availability(source.from_source)

    def pin(self, source: ConstrainedChatConfig) -> ConstrainedChatConfig:
        """Pin the inner source."""
        inner = self._source_type(source.from_source).pin(source.from_source)
        return source.model_copy(update={"from_source": inner})

    def origin(self, source: ConstrainedChatConfig) -> BaseSourceConfig:
        """The inner source."""
        return source.from_source

    def label(self, source: ConstrainedChatConfig) -> str:
        """The inner source's label, and what was done to it."""
        return f"{self._source_type(source.from_source).label(source.from_source)}, with constraints"

    def hub_dataset(self, source: ConstrainedChatConfig) -> str | None:
        """That of the inner source."""
        return self._source_type(source.from_source).hub_dataset(source.from_source)

    def generate_examples(
        self,
        source: ConstrainedChatConfig,  # noqa: ARG002
        stage: str,  # noqa: ARG002
        seed: int,
        parents: Iterable[Document],
    ) -> Iterator[Example]:
        """The training conversations of the inner source, under constraints."""
        examples = (constrained_chat.constrain(document, seed + _EXAMPLE_SEED_OFFSET) for document in parents)
        return (example for example in examples if example)
