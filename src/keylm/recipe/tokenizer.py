"""`tokenizer`: how the vocabulary is trained."""

from __future__ import annotations

from typing import Literal

from keylm.recipe.base import Config, PositiveCount


class TokenizerConfig(Config):
    """How the byte-level BPE is trained."""

    pre_tokenizer: Literal["gpt-2", "qwen2", "llama-bpe"] = "qwen2"
    """The split regex, by the name under which llama.cpp knows it."""
    sample_bytes: PositiveCount = 20_000_000
    """Bytes of text the vocabulary is trained on, taken from the sources in proportion to their weights."""
