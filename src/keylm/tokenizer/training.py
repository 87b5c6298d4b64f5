"""Training the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import AddedToken, models, pre_tokenizers, trainers

from keylm.common.errors import UserError
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, Tokenizer, byte_level_backend

MAX_WORD = 1_000
"""Characters of the longest word that is trained on. The time of a merge grows with the square of a word's length."""
_LONG_RUNS = re.compile(
    rf"(?<![^\W_])[^\W_]{{{MAX_WORD + 1},}}"  # letters and digits, such as a gene or a key
    rf"|(?<!\s)\s{{{MAX_WORD + 1},}}"
    rf"|(?<![^\w\s])(?<!_)(?:[^\w\s]|_){{{MAX_WORD + 1},}}"
)
"""The classes of characters that no split regex splits, each from the beginning of a run."""


def drop_long_words(text: str) -> tuple[str, int]:
    """A text with a space in place of each word of more than `MAX_WORD` characters, and their number."""
    return _LONG_RUNS.subn(" ", text)


def train_tokenizer(texts: Iterable[str], vocab_size: int, pre_tokenizer: str) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al. 2016, on the byte alphabet of GPT-2).

    Args:
        texts: The text to train on; it is read once.
        vocab_size: Exact number of tokens: the control tokens, the 256 bytes, and the merges.
        pre_tokenizer: Name of the split regex, a key of `SPLIT_REGEX`.

    Raises:
        UserError: the text is too small to yield so many merges.
    """
    backend = byte_level_backend(models.BPE(), pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        # All 256 bytes, so that any text can be encoded. Sorted, because the order decides the ids.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() != vocab_size:
        raise UserError(
            f"the text yields only {backend.get_vocab_size():,} tokens, but model.vocab_size asks for "
            f"{vocab_size:,}: give more text or a smaller vocabulary"
        )
    return Tokenizer(backend)
