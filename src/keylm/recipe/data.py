"""`data`: the pretraining text, and how it is cleaned and stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from keylm.recipe.base import Config, Count, PositiveCount
from keylm.recipe.sources import InstalledDocsConfig, SourceConfig, check_sources


class CleanConfig(Config):
    """How documents are cleaned before they are tokenized."""

    personal_data: Literal["keep", "mask"] = "mask"
    """Whether email addresses, public IP addresses and phone numbers are replaced by fictitious ones."""
    language_model: str | None = None
    """A fastText model for language identification, such as `lid.176.bin`, on this machine; plain text that it does
    not identify as English is dropped (no check by default)."""
    language_score: float = Field(default=0.65, gt=0, lt=1)
    """Minimum probability of English under `language_model`."""
    near_duplicates: bool = False
    """Drop near duplicates across all sources by MinHash (datatrove). The sources are then read twice."""
    decontaminate: list[str] = []
    """lm_eval tasks whose test items must not occur in the text: a document that shares 12 consecutive words with one
    is dropped. Their data comes from `eval.data` if given, from the hub otherwise."""
    samples: Count = 5
    """Dropped documents kept per source and reason, for inspection."""


def _default_sources() -> list[SourceConfig]:
    # A recipe without sources must run without a download.
    return [InstalledDocsConfig(name="installed-docs")]


class DataConfig(Config):
    """The pretraining text, and how it is cleaned and stored."""

    sources: list[SourceConfig] = Field(default_factory=_default_sources)
    """The pretraining mixture. Empty, in a run with imported weights: they are not pretrained further."""
    validation_fraction: float = Field(default=0.005, gt=0, lt=0.5)
    """Fraction of documents held out, chosen by a hash of the document's text."""
    min_document_bytes: Count = 64
    """Shorter documents are dropped."""
    shard_tokens: PositiveCount = 16_000_000
    """Tokens per shard of the token store (two bytes each)."""
    clean: CleanConfig = CleanConfig()
    """Cleaning, which applies to the SFT conversations too."""

    @model_validator(mode="after")
    def _check_sources(self) -> DataConfig:
        check_sources(self.sources)
        return self
