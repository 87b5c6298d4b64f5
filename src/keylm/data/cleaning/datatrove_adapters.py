"""What datatrove's pipeline steps get from us: a tokenizer for words and sentences, and a hash function.

datatrove's own tokenizer for English is spaCy's, which is slower than our whole tokenization. This one separates words
and punctuation marks in the same way, by two regular expressions.
"""

from __future__ import annotations

import re

from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

HASHES = HashConfig(hash_fc="sha1")
"""64 bits of SHA-1. datatrove's default is xxhash, which does not accept strings since its version 4."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"'”’)\]]*(?=\s)|\Z)", re.DOTALL)


class EnglishTokenizer(WordTokenizer):  # type: ignore[misc]
    """Passed to datatrove's steps as their `language`."""

    def __init__(self) -> None:
        super().__init__("en")

    def word_tokenize(self, text: str) -> list[str]:
        """Words and punctuation marks, in order."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences, without the white space between them."""
        return _SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Start and stop of every sentence."""
        return [match.span() for match in _SENTENCE.finditer(text)]


ENGLISH = EnglishTokenizer()
"""The only instance of a process: datatrove caches what it split by tokenizer."""
