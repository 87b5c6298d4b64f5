"""What a source type can do. Each type is a subclass in a file of its own, listed in `keylm.data.sources.registry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from keylm.common.documents import Document
from keylm.data.sources.progress import ReadProgress, SourceSlice
from keylm.instructions.task import Example
from keylm.recipe.presets import Preset
from keylm.recipe.sources import BaseSourceConfig

ConfigT = TypeVar("ConfigT", bound=BaseSourceConfig)


@dataclass(frozen=True)
class ReadRequest:
    """What is asked of a source type when a source is read."""

    seed: int
    """Seed of whatever is generated."""
    progress: ReadProgress
    """Updated by the reader while its documents are taken."""
    source_slice: SourceSlice
    """The slice to read; always the full source unless the config sets `is_divisible`."""
    parents: Iterable[Document]
    """Documents of the sources that this one is made from; empty for most types."""
    prefer_messages: bool = False
    """Whether a row with a text and a conversation gives the conversation, as SFT needs it."""


class SourceType(ABC, Generic[ConfigT]):
    """The behavior of all sources of one `type`; their settings are passed to every method.

    Facts that need no code, such as whether documents are generated, are class variables of the config classes in
    `keylm.recipe.sources`.
    """

    @abstractmethod
    def read_documents(self, source: ConfigT, request: ReadRequest) -> Iterator[Document]:
        """The documents of a source, in an order that depends only on its settings, its text and the seed.

        Raises:
            MissingSourceError: the source is not available.
            UserError: it holds something that is not a document.
        """

    def availability(self, source: ConfigT) -> str:  # noqa: ARG002
        """How much of the source is on this machine, in a few words. Asks no server and reads no data."""
        return "generated"

    def location(self, source: ConfigT) -> str:
        """Where the source comes from, in a few words."""
        config: Any = source
        return f"type {config.type}"

    def preset(self, source: ConfigT) -> Preset | None:  # noqa: ARG002
        """The preset that the settings were taken from, if any."""
        return None

    def pin(self, source: ConfigT) -> ConfigT:
        """The settings with everything resolved that may change between two reads, such as a branch of a data set.

        Raises:
            MissingSourceError: the source is not available, and `on_missing` is `stop`.
        """
        return source

    def origin(self, source: ConfigT) -> Any:
        """Settings of the source that the text was taken from: the source itself unless it edits another one."""
        return source

    def label(self, source: ConfigT) -> str:
        """The source's name in a model card, as Markdown."""
        return source.name

    def hub_dataset(self, source: ConfigT) -> str | None:  # noqa: ARG002
        """Id of the data set on the Hugging Face hub, if it is one."""
        return None

    def generate_examples(
        self, source: ConfigT, stage: str, seed: int, parents: Iterable[Document]
    ) -> Iterator[Example]:
        """Prompts with checkable constraints and answers that satisfy them, for `dpo` and `grpo`.

        Only for types whose config sets `makes_examples`.

        Args:
            source: the settings.
            stage: `dpo` or `grpo`; each stage gets other examples.
            seed: the recipe's seed.
            parents: training documents of `origin(source)`, used where the answers are edited real ones.
        """
        raise NotImplementedError(f"the source `{source.name}` makes no examples for {stage}")
